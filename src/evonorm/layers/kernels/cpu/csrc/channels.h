// What a channel of a sample has before its values are read: statistics, parameters, coefficients.
#pragma once

#include <math.h>

#include "workspace.h"

namespace evonorm {
namespace EVONORM_ISA {

// Fills what Channel has of statistics, for the channels of a unit.
template <class R>
void statistics(const Job& job, const Part& unit, Workspace& work) {
  const float* mean = job.stats ? job.stats + unit.n * 2 * job.c : nullptr;
  const float* var = mean + job.c;
  const float* batch_mean = job.batch;
  const float* batch_var = job.batch + job.c;
  const float eps = job.eps;
  // What the row's scale is taken of: the variance, or the mean of squares.
  const auto second = [&](int64_t c) {
    return R::centred || squares_alone<R> ? var[c] : var[c] + mean[c] * mean[c];
  };
  if (R::extent == Extent::group) {
    const int64_t size = job.c / job.groups;
    for (int64_t g = unit.c0; g < unit.c1; g += size) {
      double centre = 0, moment = 0;
      if (R::centred) {
        for (int64_t c = g; c < g + size; ++c) centre += mean[c];
        centre /= (double)size;
      }
      for (int64_t c = g; c < g + size; ++c) {
        const double gap = mean[c] - centre;
        moment += R::centred ? (double)var[c] + gap * gap : (double)second(c);
      }
      const float scale = 1.0f / sqrtf((float)(moment / (double)size) + eps);
      for (int64_t c = g; c < g + size; ++c) work.centre[c] = (float)centre, work.scale[c] = scale;
    }
  } else {
#pragma omp simd
    for (int64_t c = unit.c0; c < unit.c1; ++c) {
      if (R::extent == Extent::instance) {
        work.centre[c] = 0.0f;
        work.scale[c] = 1.0f / sqrtf(second(c) + eps);
      } else if (R::extent == Extent::batch) {
        work.centre[c] = batch_mean[c];
        work.scale[c] = 1.0f / sqrtf(batch_var[c] + eps);
      } else {
        work.centre[c] = mean[c];
        work.scale[c] = 1.0f;
        work.instance[c] = sqrtf(second(c) + eps);
        work.batch_std[c] = sqrtf(batch_var[c] + eps);
      }
    }
  }
}

inline Channel channel(const Job& job, const Workspace& work, int64_t n, int64_t c) {
  const float weight = job.weight[n * job.weight_step + c], bias = job.bias[n * job.bias_step + c];
  return {weight, bias, job.extra[c], work.centre[c], work.scale[c], work.instance[c], work.batch_std[c]};
}

// weight, bias and extra at every channel, what is not given as it counts; each sample's own stay where they are.
// to: (3, ld).
inline void give_parameters(Job& job, float* to, int64_t ld) {
  const float** given[] = {&job.weight, &job.bias, &job.extra};
  const int64_t steps[] = {job.weight_step, job.bias_step, 0};
  for (int i = 0; i < 3; ++i, to += ld) {
    if (steps[i]) continue;
    for (int64_t c = 0; c < job.c; ++c) to[c] = *given[i] ? (*given[i])[c] : i == 0 ? 1.0f : 0.0f;
    *given[i] = to;
  }
}

// COUNT coefficients for the channels of a part, by R::forward or R::backward, in the order of lanes.
template <int COUNT, class T, class L, class Make>
void coefficients(const Job& job, const Part& part, Workspace& work, int64_t ld, const Make& make) {
#pragma omp simd
  for (int64_t c = part.c0; c < part.c1; ++c) {
    float k[Row::max_coefficients];
    make(channel(job, work, part.n, c), k);
    for (int i = 0; i < COUNT; ++i) work.k[i * ld + c] = k[i];
  }
  for (int i = 0; i < COUNT; ++i) L::template to_lanes<T>(work.k + i * ld, part.c1);
}

// What coefficients<> makes; lambdas, so that they are inlined.
template <class R>
constexpr auto forward_of = [](const Channel& q, float* k) { R::forward(q, k); };
template <class R>
constexpr auto backward_of = [](const Channel& q, float* k) { R::backward(q, k); };

template <class R>
int64_t group_size(const Job& job) {
  return R::extent == Extent::group ? job.c / job.groups : 1;
}

}  // namespace EVONORM_ISA
}  // namespace evonorm
