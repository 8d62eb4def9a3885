// A vector of floats in the widest registers that this translation unit is compiled for.
//
// Every variant of the kernels is compiled from the same sources in a namespace of its own (EVONORM_ISA), so that the
// linker can never put one variant's inline functions into another, which the processor might not execute.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace evonorm {
namespace EVONORM_ISA {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float F __attribute__((vector_size(WIDTH * 4)));
typedef int32_t I __attribute__((vector_size(WIDTH * 4)));
typedef uint32_t U __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t H __attribute__((vector_size(WIDTH * 2)));

struct Bf16 {
  uint16_t bits;
};

// How many lanes of a vector are in memory: all, or the first few.
struct All {};
struct First {
  int count;
};

inline F splat(float value) { return value - F{}; }

// True lanes of a comparison are -1.
inline F select(I condition, F yes, F no) { return condition ? yes : no; }

// The second operand where either is NaN: vmax(limit, x) keeps the NaN of x.
inline F vmax(F a, F b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return select(a > b, a, b);
#endif
}

inline F vmin(F a, F b) {
#if defined(__AVX512F__)
  return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_min_ps(a, b);
#else
  return select(a < b, a, b);
#endif
}

// a * b + c. Contraction by the compiler is off: the same expression gives the same bits wherever it is inlined.
inline F fma(F a, F b, F c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

inline float sum_lanes(F x) {
  float lanes[WIDTH];
  memcpy(lanes, &x, sizeof x);
  for (int width = WIDTH / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

inline F load(const float* from, All) {
  F value;
  memcpy(&value, from, sizeof value);
  return value;
}

inline F load(const float* from, First lanes) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps((__mmask16)((1u << lanes.count) - 1), from);
#else
  F value{};
  memcpy(&value, from, sizeof(float) * (size_t)lanes.count);
  return value;
#endif
}

inline void store(float* to, F value, All) { memcpy(to, &value, sizeof value); }

inline void store(float* to, F value, First lanes) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, (__mmask16)((1u << lanes.count) - 1), value);
#else
  memcpy(to, &value, sizeof(float) * (size_t)lanes.count);
#endif
}

inline F widen(H half) { return (F)(__builtin_convertvector(half, U) << 16); }

// To the nearest bfloat16, ties to even; NaN stays NaN.
inline H narrow(F value) {
#if defined(__AVX512BF16__)
  return (H)_mm512_cvtneps_pbh(value);
#else
  const U bits = (U)value;
  const U rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const U half = (value == value) ? rounded : ((bits >> 16) | 0x40);
#if defined(__AVX512F__)
  return (H)_mm512_cvtepi32_epi16((__m512i)half);
#elif defined(__AVX2__)
  const __m256i packed = _mm256_packus_epi32((__m256i)half, (__m256i)half);
  return (H)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
#else
  return __builtin_convertvector(half, H);
#endif
#endif
}

inline F load(const Bf16* from, All) {
  H half;
  memcpy(&half, from, sizeof half);
  return widen(half);
}

inline F load(const Bf16* from, First lanes) {
#if defined(__AVX512F__)
  return widen((H)_mm256_maskz_loadu_epi16((__mmask16)((1u << lanes.count) - 1), from));
#else
  H half{};
  memcpy(&half, from, sizeof(Bf16) * (size_t)lanes.count);
  return widen(half);
#endif
}

inline void store(Bf16* to, F value, All) {
  const H half = narrow(value);
  memcpy(to, &half, sizeof half);
}

inline void store(Bf16* to, F value, First lanes) {
  const H half = narrow(value);
#if defined(__AVX512F__)
  _mm256_mask_storeu_epi16(to, (__mmask16)((1u << lanes.count) - 1), (__m256i)half);
#else
  memcpy(to, &half, sizeof(Bf16) * (size_t)lanes.count);
#endif
}

inline float to_float(float value) { return value; }

inline float to_float(Bf16 value) {
  const uint32_t bits = (uint32_t)value.bits << 16;
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

// Zeroes the lanes that are not in memory.
inline F only(F value, All) { return value; }

inline F only(F value, First lanes) {
#if defined(__AVX512F__)
  return _mm512_maskz_mov_ps((__mmask16)((1u << lanes.count) - 1), value);
#else
  float kept[WIDTH];
  memcpy(kept, &value, sizeof value);
  for (int i = lanes.count; i < WIDTH; ++i) kept[i] = 0.0f;
  return load(kept, All{});
#endif
}

// 1 / (1 + exp(-z)); NaN for NaN.
//
// exp(-z) = 2^n * 2^f with n the integer nearest to -z * log2(e): n by the addition of 1.5 * 2^23, whose last bits then
// hold it, 2^f by a polynomial of degree 5 fitted to the least relative error on [-1/2, 1/2] (7.5e-8). The product
// -z * log2(e) is rounded once, in f, and log2(e) is off by 1.3e-8 of itself: for |z| <= 16 the result is within 4 ulp,
// beyond that within 1.3e-8 * |z| of itself, where it differs from 0 or 1 by less than 2e-7. |z| > 87 counts as 87.
inline F sigmoid(F z) {
  const F log2e = splat(-1.44269502162933f), magic = splat(12582912.0f);
  const F bounded = vmin(splat(87.0f), vmax(splat(-87.0f), z));
  const F shifted = fma(bounded, log2e, magic);
  const F n = shifted - magic;
#if defined(__AVX2__) || defined(__aarch64__)
  const F f = fma(bounded, log2e, -n);
#else
  // Without a fused multiply-add the product would be rounded before n is subtracted: subtract n * ln(2) from z, in two
  // steps of which the first is exact, and scale the small rest.
  const F rest = (-bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  const F f = rest * 1.44269502162933f;
#endif
  F power = fma(splat(0.0013276472454890609f), f, splat(0.009675541892647743f));
  power = fma(power, f, splat(0.05550713092088699f));
  power = fma(power, f, splat(0.24022120237350464f));
  power = fma(power, f, splat(0.6931469440460205f));
  power = fma(power, f, splat(1.0000001192092896f));
  const F exponential = (F)((U)power + ((U)shifted << 23));
  return 1.0f / (1.0f + exponential);  // the divider works beside the multipliers: no slower than an estimate refined
}

}  // namespace EVONORM_ISA
}  // namespace evonorm
