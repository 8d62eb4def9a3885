// The sigmoid of a vector: one division, one polynomial.
#pragma once

#include "vector.h"

namespace evonorm {
namespace EVONORM_ISA {

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
