// The memory of one call, and what each thread has of it: an array for everything that a channel has.
#pragma once

#include <stdlib.h>

#include "layout.h"
#include "rows.h"

namespace evonorm {
namespace EVONORM_ISA {

// Memory for one call; null if there is none.
struct Memory {
  float* start;
  explicit Memory(int64_t floats) {
    void* got = nullptr;
    start = posix_memalign(&got, 64, sizeof(float) * (size_t)larger(16, floats)) == 0 ? (float*)got : nullptr;
  }
  ~Memory() { free(start); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
};

// Per-channel arrays of one thread, each padded, and its stash. Zeroed once, so that lanes beyond the channels are finite.
struct Workspace {
  static constexpr int ARRAYS = 21;
  float *centre, *scale, *instance, *batch_std;  // see Channel
  float *alpha, *kappa, *lambda;
  float *shift, *mean, *square;
  float* k;     // coefficients, one array after the other
  float* sums;  // of a segment, likewise
  float* stash;

  static int64_t floats(int64_t ld) { return ARRAYS * ld; }

  Workspace(float* start, int64_t ld, float* stash_) {
    float** arrays[] = {&centre, &scale, &instance, &batch_std, &alpha, &kappa, &lambda, &shift, &mean, &square, &k};
    for (float** array : arrays) *array = start, start += ld;
    sums = k + Row::max_coefficients * ld;
    stash = stash_;
  }

  void clear_moments(const Part& part) {
    const size_t bytes = sizeof(float) * (size_t)(padded(part.c1) - part.c0);
    memset(mean + part.c0, 0, bytes), memset(square + part.c0, 0, bytes);
  }
};

}  // namespace EVONORM_ISA
}  // namespace evonorm
