// The forward passes of a row: moments, then y.
#pragma once

#include "channels.h"
#include "moments.h"
#include "schedule.h"

namespace evonorm {
namespace EVONORM_ISA {

template <class R, class T, class L>
int forward_passes(const Forward& given) {
  Forward job = given;
  const T* x = (const T*)job.x;
  T* y = (T*)job.y;
  const int64_t ld = padded(job.c);
  const bool takes_batch = of_batch<R> && !job.given_batch;
  const bool takes_moments = of_sample<R> || takes_batch;
  const Plan plan = make_plan<L>(job, group_size<R>(job), takes_batch);
  const int64_t partial_floats = plan.units * plan.chunks * 2 * ld;
  const int64_t workspaces = plan.threads * Workspace::floats(ld);
  const int64_t own_stats = job.stats == nullptr && takes_moments ? job.n * 2 * job.c : 0;
  Memory memory(workspaces + 3 * ld + own_stats + (takes_moments && !L::splits_channels ? partial_floats : 0));
  if (!memory.start) return OUT_OF_MEMORY;
  memset(memory.start, 0, sizeof(float) * (size_t)workspaces);
  give_parameters(job, memory.start + workspaces, ld);
  if (own_stats) job.stats = memory.start + workspaces + 3 * ld;
  float* partials = memory.start + workspaces + 3 * ld + own_stats;
  const auto workspace_of = [&](int thread) { return Workspace(memory.start + thread * Workspace::floats(ld), ld, nullptr); };

  run(
      job, plan,
      [&](const Part& unit, int64_t u, int64_t k, int thread) {
        if (!takes_moments) return;
        Workspace work = workspace_of(thread);
        const Part part = L::chunk(unit, k, plan.chunks);
        if (squares_alone<R>)
          chunk_squares<T, L>(job, x, part, work);
        else
          chunk_moments<T, L>(job, x, unit, part, work);
        if (L::splits_channels) {
          float* stats = job.stats + part.n * 2 * job.c;
          for (int64_t c = part.c0; c < part.c1; ++c) {
            stats[c] = work.shift[c] + work.mean[c];
            stats[job.c + c] = work.square[c] / (float)job.s;
          }
        } else {
          float* partial = partials + (u * plan.chunks + k) * 2 * ld;
          memcpy(partial, work.mean, sizeof(float) * (size_t)ld);
          memcpy(partial + ld, work.square, sizeof(float) * (size_t)ld);
        }
      },
      [&](const Part& unit, int64_t u, int) {
        if (takes_moments && !L::splits_channels)
          merge_moments<R, T, L>(job, x, plan, unit, partials + u * plan.chunks * 2 * ld, ld);
      },
      [&](int64_t c0, int64_t c1, int) {
        if (takes_batch) batch_moments(job, c0, c1);
      },
      [&](const Part& unit, int64_t, int64_t k, int thread) {
        if (!y) return;
        Workspace work = workspace_of(thread);
        const Part part = L::chunk(unit, k, plan.chunks);
        if (part.c0 == part.c1) return;
        if (plan.begins(k)) {
          statistics<R>(job, unit, work);
          coefficients<R::forward_coefficients, T, L>(job, plan.prepares(unit, part), work, ld, forward_of<R>);
        }
        L::template in_order<T>(job, part, [&](const Strip& strip, auto vector) EVONORM_INLINE {
          using V = decltype(vector);
          V c[Row::max_coefficients];
          for (int i = 0; i < R::forward_coefficients; ++i) c[i] = L::template coefficient<V>(work.k + i * ld + strip.c);
          each<1>(strip, V{}, [&](int64_t at, auto lanes, auto) {
            store(y + at, R::value(load(x + at, lanes), c), lanes);
          });
        });
      },
      [](int64_t, int64_t, int) {});
  return DONE;
}

}  // namespace EVONORM_ISA
}  // namespace evonorm
