// What flows back through the statistics, from the sums that slopes have left.
#pragma once

#include "channels.h"
#include "schedule.h"

namespace evonorm {
namespace EVONORM_ISA {

// What flows back through the statistics: dx = alpha * h + kappa * (x - centre) + lambda.
template <class R>
void feedback(const Backward& job, const Part& unit, const float* sums, int64_t ld, Workspace& work) {
  const float* weight = job.weight + unit.n * job.weight_step;
  const bool through_batch = of_batch<R> && job.batch_count > 0;
  const double count = job.batch_count;
  if (R::extent == Extent::group || R::extent == Extent::instance) {
    const int64_t size = group_size<R>(job);
    for (int64_t g = unit.c0; g < unit.c1; g += size) {
      double by_scale = 0, by_centre = 0;
      for (int64_t c = g; c < g + size; ++c) {
        by_scale += (double)weight[c] * sums[ld + c];
        by_centre += (double)weight[c] * sums[c];
      }
      const double scale = work.scale[g], values = (double)(size * job.s);
      for (int64_t c = g; c < g + size; ++c) {
        work.alpha[c] = (float)((double)weight[c] * scale);
        work.kappa[c] = (float)(-by_scale * scale * scale * scale / values);
        work.lambda[c] = R::subtracts ? (float)(-by_centre * scale / values) : 0.0f;
      }
    }
    return;
  }
#pragma omp simd
  for (int64_t c = unit.c0; c < unit.c1; ++c) {
    const double w = weight[c], scale = work.scale[c];
    double kappa = 0, lambda = 0;
    if (R::extent == Extent::batch) {
      if (through_batch) {
        kappa = -job.totals[job.c + c] * scale * scale * scale / count;
        lambda = -job.totals[c] * scale / count;
      }
    } else {
      const double by_instance = -w * sums[(R::sums - 2) * ld + c] / ((double)job.s * work.instance[c]);
      kappa = by_instance;
      if (!R::centred) lambda = by_instance * work.centre[c];
      if (through_batch) {
        const double by_batch = -job.totals[job.c + c] / (count * work.batch_std[c]);
        kappa += by_batch;
        lambda += by_batch * ((double)work.centre[c] - job.batch[c]);
      }
    }
    work.alpha[c] = (float)(w * scale);
    work.kappa[c] = (float)kappa;
    work.lambda[c] = (float)lambda;
  }
}

// What the batch's moments need of all samples: (2, c).
template <class R>
void batch_totals(const Backward& job, const float* sums, int64_t ld, int64_t c0, int64_t c1) {
  constexpr int first = R::extent == Extent::batch ? 0 : R::sums - 2;
  by_blocks(c0, c1, [&](int64_t from, int64_t channels) {
    for (int which = 0; which < 2; ++which) {
      double total[BLOCK] = {};
      for (int64_t n = 0; n < job.n; ++n) {
        const float* sum = sums + (n * R::sums + first + which) * ld + from;
        const float* weight = job.weight + n * job.weight_step + from;
#pragma omp simd
        for (int64_t i = 0; i < channels; ++i) total[i] += (double)weight[i] * sum[i];
      }
      for (int64_t i = 0; i < channels; ++i) job.totals[which * job.c + from + i] = (float)total[i];
    }
  });
}

}  // namespace EVONORM_ISA
}  // namespace evonorm
