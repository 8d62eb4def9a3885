// The library's C interface: picks the variant that this processor runs, and fills in the job.
#include <stddef.h>

#include "job.h"

#define EXPORT __attribute__((visibility("default")))

namespace {

struct Variant {
  const char* name;
  bool (*runs)();
  int (*forward)(int, bool, const evonorm::Forward&);
  int (*backward)(int, bool, const evonorm::Backward&);
};

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif
bool always() { return true; }

#define VARIANT(name, runs) {#name, runs, evonorm::name::forward, evonorm::name::backward}
const Variant VARIANTS[] = {
#if defined(__x86_64__)
    VARIANT(avx512bf16, has_avx512bf16),
    VARIANT(avx512, has_avx512),
    VARIANT(avx2, has_avx2),
#endif
    VARIANT(baseline, always),
};
#undef VARIANT
constexpr int COUNT = sizeof VARIANTS / sizeof *VARIANTS;

const Variant* chosen = nullptr;

const Variant& variant() {
  if (!chosen) {
    int i = 0;
    while (!VARIANTS[i].runs()) ++i;
    chosen = &VARIANTS[i];
  }
  return *chosen;
}

}  // namespace

extern "C" {

// Counts up with every change of this interface; the Python side checks it.
EXPORT int evonorm_interface() { return 3; }

EXPORT const char* evonorm_instructions() { return variant().name; }

// The name of row `index`, null past the last; the Python side holds its own list to it.
EXPORT const char* evonorm_row(int index) {
#define EVONORM_NAME(ID, name) name,
  static const char* const names[] = {EVONORM_ROWS(EVONORM_NAME)};
#undef EVONORM_NAME
  return index >= 0 && index < evonorm::ROWS ? names[index] : nullptr;
}

// The name of variant `index` if this processor runs it, an empty string if not, null past the last.
EXPORT const char* evonorm_variant(int index) {
  if (index < 0 || index >= COUNT) return nullptr;
  return VARIANTS[index].runs() ? VARIANTS[index].name : "";
}

// Takes variant `index` from now on; for tests and measurements. Returns 0, or 1 if the processor does not run it.
EXPORT int evonorm_choose(int index) {
  if (index < 0 || index >= COUNT || !VARIANTS[index].runs()) return 1;
  chosen = &VARIANTS[index];
  return 0;
}

EXPORT int evonorm_forward(int row, int bf16, int channels_last, int64_t n, int64_t c, int64_t s, int groups, float eps,
                    int threads, int64_t weight_step, int64_t bias_step, int given_batch, const void* x, const float* weight, const float* bias,
                    const float* extra, float* stats, float* batch, void* y) {
  evonorm::Forward job{};
  job.n = n, job.c = c, job.s = s, job.groups = groups, job.eps = eps;
  job.weight_step = weight_step, job.bias_step = bias_step;
  job.channels_last = channels_last, job.threads = threads, job.given_batch = given_batch;
  job.x = x, job.weight = weight, job.bias = bias, job.extra = extra, job.stats = stats, job.batch = batch, job.y = y;
  return variant().forward(row, bf16, job);
}

EXPORT int evonorm_backward(int row, int bf16, int channels_last, int64_t n, int64_t c, int64_t s, int groups, float eps,
                     int threads, int64_t weight_step, int64_t bias_step, int phases, double batch_count, const void* x, const void* dy, const float* weight,
                     const float* bias, const float* extra, float* stats, float* batch, void* dx, float* dweight,
                     float* dbias, float* dextra, float* sums, float* totals) {
  evonorm::Backward job{};
  job.n = n, job.c = c, job.s = s, job.groups = groups, job.eps = eps;
  job.weight_step = weight_step, job.bias_step = bias_step;
  job.channels_last = channels_last, job.threads = threads, job.given_batch = true;
  job.phases = phases, job.batch_count = batch_count;
  job.x = x, job.dy = dy, job.weight = weight, job.bias = bias, job.extra = extra, job.stats = stats, job.batch = batch;
  job.dx = dx, job.dweight = dweight, job.dbias = dbias, job.dextra = dextra, job.sums = sums, job.totals = totals;
  return variant().backward(row, bf16, job);
}
}
