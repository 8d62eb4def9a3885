// Vectors to and from memory, as float32 or bfloat16: whole, or the first few of their lanes.
#pragma once

#include "vector.h"

namespace evonorm {
namespace EVONORM_ISA {

// How many lanes of a vector are in memory: all, or the first few.
template <class V>
struct All {};
template <class V>
struct First {
  int count;
};

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

}  // namespace EVONORM_ISA
}  // namespace evonorm
