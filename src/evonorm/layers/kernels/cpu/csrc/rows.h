// The layers: what each does to a vector of values (or a pair of vectors), and what its derivative sums. Nothing here
// knows of memory, threads or layout; forward.h and backward.h do the rest alike for all.
//
// Forward, y = value(x, k), with coefficients k made per channel. Backward, with dy the cotangent of y:
// h = slope(x, dy, k, sums) and later dx = alpha * h + kappa * (x - centre) + lambda, where alpha is the channel's
// scale and the other two are what flows back through the statistics. sums[0] is the gradient of bias, scale * sums[1]
// that of weight, sums[2] that of v or tau up to a factor.
#pragma once

#include <float.h>
#include <math.h>

#include "sigmoid.h"

namespace evonorm {
namespace EVONORM_ISA {

// Extent of the statistics: over a sample's group, a sample's channel, a channel of the batch, or the last two both.
enum class Extent { group, instance, batch, mixed };

// One channel of one sample, before it is made into coefficients.
struct Channel {
  float weight, bias, extra;
  float centre;     // the mean in force; 0 where the second moment is not taken about the mean
  float scale;      // 1 / std or 1 / rms, of the group, the instance or the batch; mixed: of none, 1
  float instance;   // mixed: std or rms of the instance
  float batch_std;  // mixed
};

// What rows have unless they say otherwise.
struct Row {
  static constexpr bool centred = false;   // second moment about the mean
  static constexpr bool subtracts = false; // the mean is subtracted from x, so a gradient flows through it
  static constexpr bool stash = false;     // slope is dear: keep h between the two passes rather than compute it again
  static constexpr int max_coefficients = 5;
};

// Only the mean of squares is needed: it is taken as it is, so that one infinite value leaves the others finite.
template <class R>
constexpr bool squares_alone = !R::centred && R::extent != Extent::mixed;
template <class R>
constexpr bool of_batch = R::extent == Extent::batch || R::extent == Extent::mixed;
// Statistics per sample are needed (BatchNorm needs them only on the way to the batch's).
template <class R>
constexpr bool of_sample = R::extent != Extent::batch;

// What S0 is made of: gate = sigmoid(v * x), by coefficients k from v. The factor 1 / ln(2) of the exponent is part of
// them, and x is bounded rather than v * x: the product is not needed by itself.
struct Gate {
  static void coefficients(float v, float* k) {
    const float bound = 87.0f / fabsf(v);
    k[0] = (float)(-LOG2E * v);
    k[2] = bound > FLT_MAX ? FLT_MAX : bound;
    k[1] = -k[2];
  }
  template <class V>
  static V of(V x, const V* k) { return logistic(x, k[0], k[1], k[2]); }
};

struct RowS0 : Row {
  static constexpr Extent extent = Extent::group;
  static constexpr bool centred = true, stash = true;
  static constexpr int forward_coefficients = 5, backward_coefficients = 4, sums = 3;
  static void forward(const Channel& q, float* k) {
    Gate::coefficients(q.extra, k);
    k[3] = q.weight * q.scale, k[4] = q.bias;
  }
  static void backward(const Channel& q, float* k) { Gate::coefficients(q.extra, k), k[3] = q.extra; }
  template <class V>
  static V value(V x, const V* k) { return fma(x * Gate::of(x, k), k[3], k[4]); }
  template <class V>
  static V slope(V x, V dy, const V* k, V* sums) {
    const V gate = Gate::of(x, k), flow = dy * gate;
    const V by_weight = flow * x, by_gate = by_weight * (1.0f - gate);
    sums[0] += dy;
    sums[1] += by_weight;
    sums[2] = fma(by_gate, x, sums[2]);
    return fma(by_gate, k[3], flow);
  }
  static float extra_factor(const Channel& q) { return q.weight * q.scale; }
};

struct RowS1 : Row {
  static constexpr Extent extent = Extent::group;
  static constexpr bool centred = true, stash = true;
  static constexpr int forward_coefficients = 2, backward_coefficients = 0, sums = 2;
  static void forward(const Channel& q, float* k) { k[0] = q.weight * q.scale, k[1] = q.bias; }
  static void backward(const Channel&, float*) {}
  template <class V>
  static V value(V x, const V* k) { return fma(x * sigmoid(x), k[0], k[1]); }
  template <class V>
  static V slope(V x, V dy, const V*, V* sums) {
    const V gate = sigmoid(x), flow = dy * gate, by_weight = flow * x;
    sums[0] += dy;
    sums[1] += by_weight;
    return fma(by_weight, 1.0f - gate, flow);
  }
  static float extra_factor(const Channel&) { return 0; }
};

struct RowS2 : RowS1 {
  static constexpr bool centred = false;
};

// (x - centre) * scale * weight + bias, then an activation: GroupNorm and BatchNorm.
template <Extent EXTENT, class Activation>
struct Rival : Row {
  static constexpr Extent extent = EXTENT;
  static constexpr bool centred = true, subtracts = true, stash = Activation::dear && EXTENT == Extent::group;
  static constexpr int forward_coefficients = 3, backward_coefficients = 3, sums = 2;
  static void forward(const Channel& q, float* k) { k[0] = q.centre, k[1] = q.weight * q.scale, k[2] = q.bias; }
  static void backward(const Channel& q, float* k) { forward(q, k); }
  template <class V>
  static V value(V x, const V* k) { return Activation::value(fma(x - k[0], k[1], k[2])); }
  template <class V>
  static V slope(V x, V dy, const V* k, V* sums) {
    const V from_centre = x - k[0];
    const V flow = Activation::slope(fma(from_centre, k[1], k[2]), dy);
    sums[0] += flow;
    sums[1] = fma(flow, from_centre, sums[1]);
    return flow;
  }
  static float extra_factor(const Channel&) { return 0; }
};

struct Relu {
  static constexpr bool dear = false;
  template <class V>
  static V value(V z) { return vmax(V{}, z); }
  template <class V>
  static V slope(V z, V dy) { return select(z <= 0.0f, V{}, dy); }
};

struct Silu {
  static constexpr bool dear = true;
  template <class V>
  static V value(V z) { return z * sigmoid(z); }
  template <class V>
  static V slope(V z, V dy) {
    const V gate = sigmoid(z);
    return dy * gate * fma(z, 1.0f - gate, splat<V>(1.0f));
  }
};

// 1 where a > b, 1/2 where they are equal, else 0: how torch shares the gradient of a maximum.
template <class V>
inline V share_of_maximum(V a, V b) {
  return select(a > b, splat<V>(1.0f), select(a == b, splat<V>(0.5f), V{}));
}

struct RowFrnTlu : Row {
  static constexpr Extent extent = Extent::instance;
  static constexpr int forward_coefficients = 3, backward_coefficients = 3, sums = 3;
  static void forward(const Channel& q, float* k) {
    // A threshold that is NaN must reach y; the maximum below keeps the NaN of its second operand alone.
    k[0] = q.weight * q.scale, k[1] = q.extra == q.extra ? q.bias : q.extra, k[2] = q.extra;
  }
  static void backward(const Channel& q, float* k) { forward(q, k); }
  template <class V>
  static V value(V x, const V* k) { return vmax(k[2], fma(x, k[0], k[1])); }
  template <class V>
  static V slope(V x, V dy, const V* k, V* sums) {
    const V passed = dy * share_of_maximum(fma(x, k[0], k[1]), k[2]);
    sums[0] += passed;
    sums[1] = fma(passed, x, sums[1]);
    sums[2] += dy - passed;
    return passed;
  }
  static float extra_factor(const Channel&) { return 1; }
};

// x / max(batch_std, d(x)) * weight + bias. A row says what d is, its derivative by x, and by the instance's statistic.
// The last two sums are what flows into that statistic and into batch_std, both up to -weight.
template <class D>
struct Batched : Row {
  static constexpr Extent extent = Extent::mixed;
  static constexpr bool centred = D::centred;
  static constexpr bool has_v = D::has_v;
  static constexpr int forward_coefficients = 5, backward_coefficients = 3, sums = has_v ? 5 : 4;
  static void backward(const Channel& q, float* k) {
    // A batch_std that is NaN must reach every value; the maximum keeps the NaN of its second operand alone.
    k[0] = q.batch_std, k[1] = q.batch_std == q.batch_std ? q.instance : q.batch_std, k[2] = q.extra;
  }
  static void forward(const Channel& q, float* k) { backward(q, k), k[3] = q.weight, k[4] = q.bias; }
  template <class V>
  static V value(V x, const V* k) { return fma(x / vmax(k[0], D::value(x, k)), k[3], k[4]); }
  template <class V>
  static V slope(V x, V dy, const V* k, V* sums) {
    const V d = D::value(x, k);
    const V q = 1.0f / vmax(k[0], d);
    const V share = share_of_maximum(d, k[0]);
    const V flow = dy * q, scaled = x * q;
    const V product = flow * scaled, through_d = product * share;
    sums[0] += dy;
    sums[1] = fma(dy, scaled, sums[1]);
    if (has_v) sums[2] = fma(through_d, x, sums[2]);
    sums[Batched::sums - 2] += D::by_instance(x, through_d);
    sums[Batched::sums - 1] += product - through_d;
    return fma(-through_d, D::by_x(k), flow);
  }
  static float extra_factor(const Channel& q) { return -q.weight; }
};

struct SlopePlusStd {  // B0: v * x + std
  static constexpr bool centred = true, has_v = true;
  template <class V>
  static V value(V x, const V* k) { return fma(k[2], x, k[1]); }
  template <class V>
  static V by_x(const V* k) { return k[2]; }
  template <class V>
  static V by_instance(V, V flow) { return flow; }
};

struct ShiftedTimesRms {  // B1: (x + 1) * rms
  static constexpr bool centred = false, has_v = false;
  template <class V>
  static V value(V x, const V* k) { return (x + 1.0f) * k[1]; }
  template <class V>
  static V by_x(const V* k) { return k[1]; }
  template <class V>
  static V by_instance(V x, V flow) { return fma(flow, x, flow); }
};

struct RmsMinusX {  // B2: rms - x
  static constexpr bool centred = false, has_v = false;
  template <class V>
  static V value(V x, const V* k) { return k[1] - x; }
  template <class V>
  static V by_x(const V*) { return splat<V>(-1.0f); }
  template <class V>
  static V by_instance(V, V flow) { return flow; }
};

using RowB0 = Batched<SlopePlusStd>;
using RowB1 = Batched<ShiftedTimesRms>;
using RowB2 = Batched<RmsMinusX>;
using RowBnRelu = Rival<Extent::batch, Relu>;
using RowBnSilu = Rival<Extent::batch, Silu>;
using RowGnRelu = Rival<Extent::group, Relu>;
using RowGnSilu = Rival<Extent::group, Silu>;

}  // namespace EVONORM_ISA
}  // namespace evonorm
