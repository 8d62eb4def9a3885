// What a kernel is asked to do: plain data, shared by all variants and filled by api.cpp.
#pragma once

#include <stdint.h>

namespace evonorm {

// Every row, in the order of its number: X(ID, name), computed by struct Row<ID> of rows.h. Its one list in C++.
#define EVONORM_ROWS(X)    \
  X(S0, "evonorm-s0")      \
  X(S1, "evonorm-s1")      \
  X(S2, "evonorm-s2")      \
  X(B0, "evonorm-b0")      \
  X(B1, "evonorm-b1")      \
  X(B2, "evonorm-b2")      \
  X(FrnTlu, "frn-tlu")     \
  X(BnRelu, "bn-relu")     \
  X(BnSilu, "bn-silu")     \
  X(GnRelu, "gn-relu")     \
  X(GnSilu, "gn-silu")

#define EVONORM_ID(ID, name) ID,
enum RowId { EVONORM_ROWS(EVONORM_ID) ROWS };
#undef EVONORM_ID

enum Status { DONE = 0, OUT_OF_MEMORY = 1, NOT_A_ROW = 2 };

// Sizes of x: (n, c, s), s positions in space; dense, either (n, c, s) or, channels_last, (n, s, c) in memory.
struct Job {
  int64_t n, c, s;
  int groups;
  bool channels_last;
  int threads;
  float eps;
  // From one sample's weight (bias) to the next one's: c, or 0 where all have the same.
  int64_t weight_step, bias_step;
  // Batch moments are given (running ones in evaluation, synchronized ones in training), not taken from x.
  bool given_batch;
  const void* x;
  const float* weight;  // (c,), or (n, c) by its step, or null, which counts as 1
  const float* bias;    // likewise; null counts as 0
  const float* extra;   // (c,): v or tau, of the rows that have one
  float* stats;         // (n, 2, c): mean and biased variance per sample and channel; null for rows that keep none
  float* batch;         // (2, c): mean and biased variance over batch and space; null for rows without
};

struct Forward : Job {
  void* y;  // null: take the moments alone
};

// Backward runs in two phases, so that the totals can be summed over replicas in between.
enum Phase { REDUCE = 1, APPLY = 2 };

struct Backward : Job {
  int phases;
  // Values a channel in all replicas; 0: batch moments are constants, no gradient flows through them.
  double batch_count;
  const void* dy;
  void* dx;
  float *dweight, *dbias, *dextra;  // as weight, bias and extra, or null where not wanted
  float* sums;                      // (n, sums of the row, c), or null: kept inside when both phases run
  float* totals;                    // (2, c): what batch moments need, over n, times weight
};


#define EVONORM_VARIANT(ISA)            \
  namespace ISA {                       \
  int forward(int row, bool bf16, const Forward& job); \
  int backward(int row, bool bf16, const Backward& job); \
  }
EVONORM_VARIANT(avx512bf16)
EVONORM_VARIANT(avx512)
EVONORM_VARIANT(avx2)
EVONORM_VARIANT(baseline)
#undef EVONORM_VARIANT

}  // namespace evonorm
