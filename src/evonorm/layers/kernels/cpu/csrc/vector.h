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

}  // namespace EVONORM_ISA
}  // namespace evonorm
