// The backward passes of a row: sums, then dx; at the end the parameters' gradients.
#pragma once

#include "feedback.h"

namespace evonorm {
namespace EVONORM_ISA {

template <class T>
float* as_floats(T*) { return nullptr; }
inline float* as_floats(float* dx) { return dx; }

template <class R, class T, class L>
int backward_passes(const Backward& given) {
  Backward job = given;
  const T *x = (const T*)job.x, *dy = (const T*)job.dy;
  T* dx = (T*)job.dx;
  constexpr int J = R::sums;
  const int64_t ld = padded(job.c);
  const bool through_batch = of_batch<R> && job.batch_count > 0;
  const bool reduces = job.phases & REDUCE, applies = job.phases & APPLY;
  const Plan plan = make_plan<L>(job, group_size<R>(job), through_batch || !reduces || !applies);
  // h is kept where it is dear: in dx itself if that is float32, else in the thread's stash while the unit is in cache.
  const bool in_dx = R::stash && sizeof(T) == sizeof(float);
  const bool in_stash = R::stash && !in_dx && !plan.meets;
  const int64_t stash_floats = in_stash ? divide_up(plan.panel * job.s, 16) * 16 : 0;

  const int64_t workspaces = plan.threads * Workspace::floats(ld);
  const int64_t own_sums = job.sums ? 0 : job.n * J * ld;
  const bool merges = reduces && !L::splits_channels && plan.chunks > 1;
  // Factors of the gradients of weight and extra: of each sample, or the same for all.
  const bool own_factors = R::extent == Extent::group || R::extent == Extent::instance || job.weight_step;
  const int64_t factor_floats = (own_factors ? job.n : 1) * 2 * ld;
  Memory memory(workspaces + 3 * ld + own_sums + factor_floats + (merges ? plan.units * plan.chunks * J * ld : 0) + plan.threads * stash_floats +
                2 * job.c);
  if (!memory.start) return OUT_OF_MEMORY;
  memset(memory.start, 0, sizeof(float) * (size_t)workspaces);
  float* next = memory.start + workspaces;
  give_parameters(job, next, ld);
  next += 3 * ld;
  float* stashes = next;
  next += plan.threads * stash_floats;
  float* factors = next;
  next += factor_floats;
  if (own_sums) job.sums = next, next += own_sums;
  if (!job.totals) job.totals = next;
  next += 2 * job.c;
  float* partials = next;
  const auto workspace_of = [&](int thread) {
    return Workspace(memory.start + thread * Workspace::floats(ld), ld, stashes + thread * stash_floats);
  };
  const auto sums_of = [&](int64_t n) { return job.sums + n * J * ld; };
  const auto factors_of = [&](int64_t n) { return factors + (own_factors ? n * 2 * ld : 0); };
  const auto take_factors = [&](const Part& unit, const Workspace& work) {
    float* factor = factors_of(unit.n);
#pragma omp simd
    for (int64_t c = unit.c0; c < unit.c1; ++c) {
      factor[c] = work.scale[c];
      factor[ld + c] = R::extra_factor(channel(job, work, unit.n, c));
    }
  };
  if (!own_factors && reduces && job.n > 0) {
    const Part all = {0, 0, job.c, 0, job.s};
    Workspace work = workspace_of(0);
    statistics<R>(job, all, work);
    take_factors(all, work);
  }

  run(
      job, plan,
      [&](const Part& unit, int64_t u, int64_t k, int thread) {
        if (!reduces) return;
        Workspace work = workspace_of(thread);
        const Part part = L::chunk(unit, k, plan.chunks);
        if (part.c0 == part.c1) return;
        float* to = merges ? partials + (u * plan.chunks + k) * J * ld : sums_of(unit.n);
        if (plan.begins(k)) {
          statistics<R>(job, unit, work);
          coefficients<R::backward_coefficients, T, L>(job, plan.prepares(unit, part), work, ld, backward_of<R>);
        }
        float* kept = in_dx ? as_floats(dx) : work.stash;
        const int64_t base = in_dx ? 0 : L::first(job, unit, unit.c0);
        const bool keeps = in_dx || in_stash;
        const size_t bytes = sizeof(float) * (size_t)(padded(part.c1) - part.c0);
        for (int64_t segment = 0; segment < L::segments(part); ++segment) {
          for (int j = 0; j < J; ++j) memset(work.sums + j * ld + part.c0, 0, bytes);
          L::template in_order<T>(job, L::segment(part, segment), [&](const Strip& strip, auto vector) EVONORM_INLINE {
            using V = decltype(vector);
            V c[Row::max_coefficients], sums[J] = {};
            for (int i = 0; i < R::backward_coefficients; ++i) c[i] = L::template coefficient<V>(work.k + i * ld + strip.c);
            each<1>(strip, V{}, [&](int64_t at, auto lanes, auto) {
              const V h = R::slope(load(x + at, lanes), load(dy + at, lanes), c, sums);
              if (R::stash && keeps) store(kept + (at - base), h, lanes);
            });
            for (int j = 0; j < J; ++j) {
              float* sum = work.sums + j * ld + strip.c;
              L::write(sum, L::template read<V>(sum) + L::reduce(sums[j]));
            }
          });
          for (int j = 0; j < J; ++j) {
            L::template from_lanes<T>(work.sums + j * ld, part.c1);
            for (int64_t c = j * ld + part.c0; c < j * ld + part.c1; ++c)
              to[c] = segment ? to[c] + work.sums[c] : work.sums[c];
          }
        }
      },
      [&](const Part& unit, int64_t u, int thread) {
        if (!reduces) return;
        float* sums = sums_of(unit.n);
        if (merges) {
          const float* partial = partials + u * plan.chunks * J * ld;
          for (int j = 0; j < J; ++j) {
            for (int64_t i = j * ld; i < j * ld + job.c; ++i) {
              float sum = partial[i];
              for (int64_t k = 1; k < plan.chunks; ++k) sum += partial[k * J * ld + i];
              sums[i] = sum;
            }
          }
        }
        if (!own_factors) return;
        Workspace work = workspace_of(thread);
        if (plan.meets) statistics<R>(job, unit, work);
        take_factors(unit, work);
      },
      [&](int64_t c0, int64_t c1, int) {
        if (through_batch && reduces) batch_totals<R>(job, job.sums, ld, c0, c1);
      },
      [&](const Part& unit, int64_t, int64_t k, int thread) {
        if (!applies) return;
        Workspace work = workspace_of(thread);
        const Part part = L::chunk(unit, k, plan.chunks);
        if (part.c0 == part.c1) return;
        const bool again = !(in_dx || in_stash);
        if (plan.meets) {
          statistics<R>(job, unit, work);
          if (again) coefficients<R::backward_coefficients, T, L>(job, part, work, ld, backward_of<R>);
        }
        if (plan.begins(k)) {
          feedback<R>(job, unit, sums_of(unit.n), ld, work);
          float* arrays[] = {work.alpha, work.kappa, work.lambda, work.centre};
          for (float* array : arrays) L::template to_lanes<T>(array, part.c1);
        }
        const auto finish = [&](const Strip& strip, auto vector, auto h_at) EVONORM_INLINE {
          using V = decltype(vector);
          const auto at_strip = [&](const float* array) { return L::template coefficient<V>(array + strip.c); };
          const V alpha = at_strip(work.alpha), kappa = at_strip(work.kappa);
          const V centre = at_strip(work.centre), lambda = at_strip(work.lambda);
          each<1>(strip, V{}, [&](int64_t at, auto lanes, auto) {
            const V from_centre = load(x + at, lanes) - centre;
            store(dx + at, fma(alpha, h_at(at, lanes), fma(kappa, from_centre, lambda)), lanes);
          });
        };
        if (!again) {
          const float* kept = in_dx ? as_floats(dx) : work.stash;
          const int64_t base = in_dx ? 0 : L::first(job, unit, unit.c0);
          L::template in_order<T>(job, part, [&](const Strip& strip, auto vector) EVONORM_INLINE {
            finish(strip, vector, [&](int64_t at, auto lanes) { return load(kept + (at - base), lanes); });
          });
          return;
        }
        L::template in_order<T>(job, part, [&](const Strip& strip, auto vector) EVONORM_INLINE {
          using V = decltype(vector);
          V c[Row::max_coefficients], unused[J] = {};
          for (int i = 0; i < R::backward_coefficients; ++i) c[i] = L::template coefficient<V>(work.k + i * ld + strip.c);
          finish(strip, vector, [&](int64_t at, auto lanes) {
            return R::slope(load(x + at, lanes), load(dy + at, lanes), c, unused);
          });
        });
      },
      [&](int64_t c0, int64_t c1, int) {
        if (!reduces) return;
        by_blocks(c0, c1, [&](int64_t from, int64_t channels) {
          double bias[BLOCK] = {}, weight[BLOCK] = {}, extra[BLOCK] = {};
          for (int64_t n = 0; n < job.n; ++n) {
            const float* sums = sums_of(n) + from;
            const float* factor = factors_of(n) + from;
#pragma omp simd
            for (int64_t i = 0; i < channels; ++i) {
              bias[i] += sums[i];
              weight[i] += (double)factor[i] * sums[ld + i];
              if (J == 3 || J == 5) extra[i] += (double)factor[ld + i] * sums[2 * ld + i];
            }
            float* own_bias = job.dbias && job.bias_step ? job.dbias + n * job.c + from : nullptr;
            float* own_weight = job.dweight && job.weight_step ? job.dweight + n * job.c + from : nullptr;
            for (int64_t i = 0; own_bias && i < channels; ++i) own_bias[i] = sums[i];
            for (int64_t i = 0; own_weight && i < channels; ++i) own_weight[i] = factor[i] * sums[ld + i];
          }
          for (int64_t i = 0; i < channels; ++i) {
            if (job.dbias && !job.bias_step) job.dbias[from + i] = (float)bias[i];
            if (job.dweight && !job.weight_step) job.dweight[from + i] = (float)weight[i];
            if (job.dextra) job.dextra[from + i] = (float)extra[i];
          }
        });
      });
  return DONE;
}

}  // namespace EVONORM_ISA
}  // namespace evonorm
