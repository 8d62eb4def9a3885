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

// For what lies in the innermost loops: vectors must stay in registers.
#define EVONORM_INLINE __attribute__((always_inline))

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

// Two vectors in step. Rows of bfloat16 are taken as pairs: a 32-bit word holds two of them, the even one goes to `a` by
// one shift and the odd one to `b` by one mask, so these two hold the even and the odd values of what is in memory.
template <class V>
struct Two {
  V a, b;
};
using Pair = Two<F>;

template <class V>
constexpr int width = WIDTH;
template <>
constexpr int width<Pair> = 2 * WIDTH;

// The vector to take values of a type by.
template <class T>
struct Widest {
  using V = F;
};
template <>
struct Widest<Bf16> {
  using V = Pair;
};

// How many lanes of a vector are in memory: all, or the first few.
template <class V>
struct All {};
template <class V>
struct First {
  int count;
};

template <class V = F>
inline V splat(float value);
template <>
inline F splat<F>(float value) {
  return value - F{};
}
template <>
inline Pair splat<Pair>(float value) {
  return {splat(value), splat(value)};
}

#define EVONORM_BY_PARTS(OP, RESULT)                                                        \
  inline Two<RESULT> operator OP(Pair x, Pair y) { return {x.a OP y.a, x.b OP y.b}; }       \
  inline Two<RESULT> operator OP(Pair x, float y) { return {x.a OP y, x.b OP y}; }          \
  inline Two<RESULT> operator OP(float x, Pair y) { return {x OP y.a, x OP y.b}; }
EVONORM_BY_PARTS(+, F)
EVONORM_BY_PARTS(-, F)
EVONORM_BY_PARTS(*, F)
EVONORM_BY_PARTS(/, F)
EVONORM_BY_PARTS(>, I)
EVONORM_BY_PARTS(<=, I)
EVONORM_BY_PARTS(==, I)
#undef EVONORM_BY_PARTS
inline Pair operator-(Pair x) { return {-x.a, -x.b}; }
inline Pair& operator+=(Pair& x, Pair y) { return x = x + y; }

// True lanes of a comparison are -1.
inline F select(I condition, F yes, F no) { return condition ? yes : no; }
inline Pair select(Two<I> condition, Pair yes, Pair no) {
  return {select(condition.a, yes.a, no.a), select(condition.b, yes.b, no.b)};
}

// The second operand where either is NaN: vmax(limit, x) keeps the NaN of x.
inline F vmax(F a, F b) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps((__mmask16)-1, a, b);  // without a mask GCC 12 warns of its own header
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return select(a > b, a, b);
#endif
}

inline F vmin(F a, F b) {
#if defined(__AVX512F__)
  return _mm512_maskz_min_ps((__mmask16)-1, a, b);
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

inline Pair vmax(Pair a, Pair b) { return {vmax(a.a, b.a), vmax(a.b, b.b)}; }
inline Pair vmin(Pair a, Pair b) { return {vmin(a.a, b.a), vmin(a.b, b.b)}; }
inline Pair fma(Pair a, Pair b, Pair c) { return {fma(a.a, b.a, c.a), fma(a.b, b.b, c.b)}; }

inline float sum_lanes(F x) {
  float lanes[WIDTH];
  memcpy(lanes, &x, sizeof x);
  for (int width = WIDTH / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

inline float sum_lanes(Pair x) { return sum_lanes(x.a + x.b); }

inline float first_lane(F x) { return x[0]; }
inline float first_lane(Pair x) { return x.a[0]; }

#if defined(__AVX512F__)
inline uint32_t mask(int lanes) { return (uint32_t)((1ull << lanes) - 1); }
#endif

inline F load(const float* from, All<F>) {
  F value;
  memcpy(&value, from, sizeof value);
  return value;
}

inline F load(const float* from, First<F> lanes) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps((__mmask16)mask(lanes.count), from);
#else
  F value{};
  memcpy(&value, from, sizeof(float) * (size_t)lanes.count);
  return value;
#endif
}

inline void store(float* to, F value, All<F>) { memcpy(to, &value, sizeof value); }

inline void store(float* to, F value, First<F> lanes) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, (__mmask16)mask(lanes.count), value);
#else
  memcpy(to, &value, sizeof(float) * (size_t)lanes.count);
#endif
}

// The lanes of each part, when the first few of a pair are in memory.
inline First<F> even(First<Pair> lanes) { return {(lanes.count + 1) / 2}; }
inline First<F> odd(First<Pair> lanes) { return {lanes.count / 2}; }

// Floats that belong to a pair lie in the order of its lanes: first those of `a`, then those of `b`.
inline Pair load(const float* from, All<Pair>) { return {load(from, All<F>{}), load(from + WIDTH, All<F>{})}; }
inline Pair load(const float* from, First<Pair> lanes) {
  return {load(from, even(lanes)), load(from + even(lanes).count, odd(lanes))};
}
inline void store(float* to, Pair value, All<Pair>) {
  store(to, value.a, All<F>{}), store(to + WIDTH, value.b, All<F>{});
}
inline void store(float* to, Pair value, First<Pair> lanes) {
  store(to, value.a, even(lanes)), store(to + even(lanes).count, value.b, odd(lanes));
}

inline F widen(H half) { return (F)(__builtin_convertvector(half, U) << 16); }
inline Pair widen(U words) { return {(F)(words << 16), (F)(words & 0xffff0000u)}; }

// To the nearest bfloat16, ties to even, in the upper half of each word; NaN stays NaN.
inline U rounded(F value) {
  const U bits = (U)value;
  return (value == value) ? bits + 0x7fff + ((bits >> 16) & 1) : (bits | 0x400000);
}

inline H narrow(F value) {
#if defined(__AVX512BF16__)
  return (H)_mm512_cvtneps_pbh(value);
#elif defined(__AVX512F__)
  return (H)_mm512_cvtepi32_epi16((__m512i)(rounded(value) >> 16));
#elif defined(__AVX2__)
  const __m256i half = (__m256i)(rounded(value) >> 16), packed = _mm256_packus_epi32(half, half);
  return (H)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
#else
  return __builtin_convertvector(rounded(value) >> 16, H);
#endif
}

inline U narrow(Pair value) {
#if defined(__AVX512BF16__)
  typedef uint16_t Halves __attribute__((vector_size(64)));
  const Halves order = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return (U)_mm512_permutexvar_epi16((__m512i)order, (__m512i)_mm512_cvtne2ps_pbh(value.b, value.a));
#else
  return (rounded(value.a) >> 16) | (rounded(value.b) & 0xffff0000u);
#endif
}

inline F load(const Bf16* from, All<F>) {
  H half;
  memcpy(&half, from, sizeof half);
  return widen(half);
}

inline F load(const Bf16* from, First<F> lanes) {
#if defined(__AVX512F__)
  return widen((H)_mm256_maskz_loadu_epi16((__mmask16)mask(lanes.count), from));
#else
  H half{};
  memcpy(&half, from, sizeof(Bf16) * (size_t)lanes.count);
  return widen(half);
#endif
}

inline void store(Bf16* to, F value, All<F>) {
  const H half = narrow(value);
  memcpy(to, &half, sizeof half);
}

inline void store(Bf16* to, F value, First<F> lanes) {
  const H half = narrow(value);
#if defined(__AVX512F__)
  _mm256_mask_storeu_epi16(to, (__mmask16)mask(lanes.count), (__m256i)half);
#else
  memcpy(to, &half, sizeof(Bf16) * (size_t)lanes.count);
#endif
}

inline Pair load(const Bf16* from, All<Pair>) {
  U words;
  memcpy(&words, from, sizeof words);
  return widen(words);
}

inline Pair load(const Bf16* from, First<Pair> lanes) {
#if defined(__AVX512F__)
  return widen((U)_mm512_maskz_loadu_epi16((__mmask32)mask(lanes.count), from));
#else
  U words{};
  memcpy(&words, from, sizeof(Bf16) * (size_t)lanes.count);
  return widen(words);
#endif
}

inline void store(Bf16* to, Pair value, All<Pair>) {
  const U words = narrow(value);
  memcpy(to, &words, sizeof words);
}

inline void store(Bf16* to, Pair value, First<Pair> lanes) {
  const U words = narrow(value);
#if defined(__AVX512F__)
  _mm512_mask_storeu_epi16(to, (__mmask32)mask(lanes.count), (__m512i)words);
#else
  memcpy(to, &words, sizeof(Bf16) * (size_t)lanes.count);
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
template <class V>
inline V only(V value, All<V>) {
  return value;
}

inline F only(F value, First<F> lanes) {
#if defined(__AVX512F__)
  return _mm512_maskz_mov_ps((__mmask16)mask(lanes.count), value);
#else
  float kept[WIDTH];
  memcpy(kept, &value, sizeof value);
  for (int i = lanes.count; i < WIDTH; ++i) kept[i] = 0.0f;
  return load(kept, All<F>{});
#endif
}

inline Pair only(Pair value, First<Pair> lanes) { return {only(value.a, even(lanes)), only(value.b, odd(lanes))}; }

#if !defined(__AVX2__) && !defined(__aarch64__)
// The value cut to its first bits, so that the product of two such is exact.
inline F upper_half(F value) { return (F)((U)value & 0xfffff000u); }
inline Pair upper_half(Pair value) { return {upper_half(value.a), upper_half(value.b)}; }
#endif

// power * 2^n, where n is the last bits of `shifted`.
inline F times_power_of_two(F power, F shifted) { return (F)((U)power + ((U)shifted << 23)); }
inline Pair times_power_of_two(Pair power, Pair shifted) {
  return {times_power_of_two(power.a, shifted.a), times_power_of_two(power.b, shifted.b)};
}

// 1 / (1 + 2^t) for t = x * factor; NaN for NaN. x outside [low, high] counts as its end; |t| may be 126 there.
//
// 2^t = 2^n * 2^f with n the integer nearest to t: n by the addition of 1.5 * 2^23, whose last bits then hold it, 2^f by
// a polynomial of degree 5 fitted to the least relative error on [-1/2, 1/2] (7.5e-8). The product is rounded once, in f.
template <class V>
inline V logistic(V x, V factor, V low, V high) {
  const V magic = splat<V>(12582912.0f);
  const V bounded = vmin(high, vmax(low, x));
  const V shifted = fma(bounded, factor, magic);
  const V n = shifted - magic;
#if defined(__AVX2__) || defined(__aarch64__)
  const V f = fma(bounded, factor, -n);
#else
  // Without a fused multiply-add the product would be rounded before n is subtracted. The upper half of each side's bits
  // multiply exactly; the rest is small.
  const V x1 = upper_half(bounded), x2 = bounded - x1, f1 = upper_half(factor), f2 = factor - f1;
  const V f = (x1 * f1 - n) + (x1 * f2 + x2 * factor);
#endif
  V power = fma(splat<V>(0.0013276472454890609f), f, splat<V>(0.009675541892647743f));
  power = fma(power, f, splat<V>(0.05550713092088699f));
  power = fma(power, f, splat<V>(0.24022120237350464f));
  power = fma(power, f, splat<V>(0.6931469440460205f));
  power = fma(power, f, splat<V>(1.0000001192092896f));
  // The divider works beside the multipliers: no slower than an estimate refined.
  return 1.0f / (1.0f + times_power_of_two(power, shifted));
}

constexpr double LOG2E = 1.4426950408889634;

// 1 / (1 + exp(-z)). log2(e) is off by 1.3e-8 of itself: for |z| <= 16 the result is within 4 ulp, beyond that within
// 1.3e-8 * |z| of itself, where it differs from 0 or 1 by less than 2e-7. |z| > 87 counts as 87.
template <class V>
inline V sigmoid(V z) {
  return logistic(z, splat<V>((float)-LOG2E), splat<V>(-87.0f), splat<V>(87.0f));
}

}  // namespace EVONORM_ISA
}  // namespace evonorm
