// Mean and variance, or the mean of squares: of chunks, of units, of the batch.
#pragma once

#include "schedule.h"
#include "workspace.h"

namespace evonorm {
namespace EVONORM_ISA {

// A strip of 32 rows stays a function of its own: inlined, it is unrolled altogether, which costs 6 % of a float32 layer.
#define EVONORM_APART __attribute__((noinline))

// Moments of a chunk, about a shift per channel: work.mean becomes mean - shift, work.square the sum of squared
// deviations. Each strip is summed about the mean of those before it, and merged by Chan's formula. So a mean far from
// zero costs no precision, and where that mean misses the strip's own, what cancels is no more than what their distance
// adds to the whole sum. The first strip, which has none before it, is read twice.
template <class T, class L>
void chunk_moments(const Job& job, const T* x, const Part& unit, const Part& part, Workspace& work) {
  for (int64_t c = part.c0; c < part.c1; ++c) work.shift[c] = to_float(x[L::first(job, unit, c)]);
  work.clear_moments(part);
  L::template to_lanes<T>(work.shift, part.c1);
  L::template strips<T>(job, part, [&](const Strip& strip, auto vector) EVONORM_APART {
    using V = decltype(vector);
    const V shift = L::template coefficient<V>(work.shift + strip.c);
    const float count = (float)strip.positions, before = (float)(strip.s - part.s0);
    const auto old = L::template read<V>(work.mean + strip.c);
    V centre = shift + (old - V{});
    if (before == 0.0f) {
      V sums[4] = {};
      each<4>(strip, V{}, [&](int64_t at, auto lanes, auto index) {
        sums[index.value] += only(load(x + at, lanes) - shift, lanes);
      });
      centre = shift + (L::reduce((sums[0] + sums[1]) + (sums[2] + sums[3])) * (1.0f / count) - V{});
    }
    V sums[4] = {}, squares[4] = {};
    each<4>(strip, V{}, [&](int64_t at, auto lanes, auto index) {
      const V d = only(load(x + at, lanes) - centre, lanes);
      sums[index.value] += d;
      squares[index.value] = fma(d, d, squares[index.value]);
    });
    const auto sum = L::reduce((sums[0] + sums[1]) + (sums[2] + sums[3]));
    const auto mean = sum * (1.0f / count);
    const auto square = L::reduce((squares[0] + squares[1]) + (squares[2] + squares[3])) - sum * mean;
    // The centre was rounded: what it really is above the shift counts.
    const auto gap = mean + (L::one(centre - shift) - old);
    const float share = count / (before + count);
    L::write(work.mean + strip.c, old + gap * share);
    L::write(work.square + strip.c, L::template read<V>(work.square + strip.c) + square + gap * gap * (before * share));
  });
  L::template from_lanes<T>(work.mean, part.c1);
  L::template from_lanes<T>(work.square, part.c1);
}

// As chunk_moments, about zero: work.mean is 0, work.square the sum of squares.
template <class T, class L>
void chunk_squares(const Job& job, const T* x, const Part& part, Workspace& work) {
  for (int64_t c = part.c0; c < part.c1; ++c) work.shift[c] = 0.0f;
  work.clear_moments(part);
  L::template strips<T>(job, part, [&](const Strip& strip, auto vector) EVONORM_APART {
    using V = decltype(vector);
    V squares[4] = {};
    each<4>(strip, V{}, [&](int64_t at, auto lanes, auto index) {
      const V value = load(x + at, lanes);
      squares[index.value] = fma(value, value, squares[index.value]);
    });
    const auto square = L::reduce((squares[0] + squares[1]) + (squares[2] + squares[3]));
    L::write(work.square + strip.c, L::template read<V>(work.square + strip.c) + square);
  });
  L::template from_lanes<T>(work.square, part.c1);
}

// Merges the chunks of a unit into mean and variance; partial: (chunks, 2, ld), as chunk_moments leaves them.
template <class R, class T, class L>
void merge_moments(const Job& job, const T* x, const Plan& plan, const Part& unit, const float* partial, int64_t ld) {
  float* stats = job.stats + unit.n * 2 * job.c;
  by_blocks(unit.c0, unit.c1, [&](int64_t c0, int64_t channels) {
    double mean[BLOCK], square[BLOCK], before = 0;
    for (int64_t k = 0; k < plan.chunks; ++k) {
      const Part part = L::chunk(unit, k, plan.chunks);
      const double count = (double)(part.s1 - part.s0);
      if (count == 0) continue;
      const float* means = partial + 2 * k * ld + c0;
      const float* squares = means + ld;
      const bool first = before == 0;
#pragma omp simd
      for (int64_t i = 0; i < channels; ++i) {
        const double gap = means[i] - (first ? 0.0 : mean[i]);
        square[i] = first ? squares[i] : square[i] + (squares[i] + gap * gap * before * count / (before + count));
        mean[i] = first ? means[i] : mean[i] + gap * count / (before + count);
      }
      before += count;
    }
    const T* origin = x + L::first(job, unit, c0);
    for (int64_t i = 0; i < channels; ++i) {
      stats[c0 + i] = squares_alone<R> ? 0.0f : to_float(origin[i]) + (float)mean[i];
      stats[job.c + c0 + i] = (float)(square[i] / before);
    }
  });
}

// Mean and biased variance over the batch, from those of the samples.
inline void batch_moments(const Job& job, int64_t c0, int64_t c1) {
  by_blocks(c0, c1, [&](int64_t from, int64_t channels) {
    double mean[BLOCK] = {}, var[BLOCK] = {}, between[BLOCK] = {};
    for (int64_t n = 0; n < job.n; ++n) {
      const float* means = job.stats + n * 2 * job.c + from;
#pragma omp simd
      for (int64_t i = 0; i < channels; ++i) mean[i] += means[i];
    }
    for (int64_t i = 0; i < channels; ++i) mean[i] /= (double)job.n;
    for (int64_t n = 0; n < job.n; ++n) {
      const float* means = job.stats + n * 2 * job.c + from;
      const float* vars = means + job.c;
#pragma omp simd
      for (int64_t i = 0; i < channels; ++i) {
        const double gap = means[i] - mean[i];
        between[i] += gap * gap;
        var[i] += vars[i];
      }
    }
    for (int64_t i = 0; i < channels; ++i) {
      job.batch[from + i] = (float)mean[i];
      job.batch[job.c + from + i] = (float)((var[i] + between[i]) / (double)job.n);
    }
  });
}

}  // namespace EVONORM_ISA
}  // namespace evonorm
