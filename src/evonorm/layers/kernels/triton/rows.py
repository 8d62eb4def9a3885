"""The layers in Triton: what each does to a tile of values, and what its derivative sums.

Nothing here knows of memory, groups or blocks. Forward, y = value(x, ...). Backward, with dy the cotangent of y,
slope(x, dy, ...) returns h and what the gradients sum; later dx = alpha * h + kappa * (x - centre) + lambda, as in
csrc/rows.h: alpha is weight * scale, the other two are what flows back through the statistics.

Both get, shaped (channels, 1): weight, bias, extra (v or tau); centre, the mean in force; scale, 1 / std or 1 / rms;
and in rows of batch and instance both, where scale is 1, instance (std or rms) and batch_std. slope returns h, then the
terms of the sums for bias, weight (up to scale), extra (up to `extra_factor`), and for what flows into instance and
batch_std (both up to -weight).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def sigmoid(x, factor):
    """1 / (1 + exp(-factor * x)), with what can be of each channel rather than of each value; NaN for NaN.

    The reciprocal of what is between 1 and 2^126 by a square root and a Newton step: a division takes twice as many.
    """
    power = tl.minimum(x * (factor * -LOG2E), 126.0, propagate_nan=tl.PropagateNan.ALL)
    below = 1.0 + tl.exp2(power)
    root = tl.rsqrt(below)
    inverse = root * root
    return inverse + inverse * (1.0 - below * inverse)


@triton.jit
def larger(a, b):
    """The maximum; NaN where either is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def share_of_maximum(a, b):
    """1 where a > b, 1/2 where they are equal, else 0: how torch shares the gradient of a maximum."""
    return tl.where(a > b, 1.0, tl.where(a == b, 0.5, 0.0))


@triton.jit
def s0_value(x, weight, bias, extra, centre, scale, instance, batch_std):
    """x * sigmoid(v * x) / std * weight + bias."""
    return x * sigmoid(x, extra) * (weight * scale) + bias


@triton.jit
def s0_slope(x, dy, weight, bias, extra, centre, scale, instance, batch_std):
    """The derivative of x * sigmoid(v * x)."""
    gate = sigmoid(x, extra)
    flow = dy * gate
    by_weight = flow * x
    by_gate = by_weight * (1.0 - gate)
    return by_gate * extra + flow, dy, by_weight, by_gate * x, 0.0, 0.0


@triton.jit
def silu_value(x, weight, bias, extra, centre, scale, instance, batch_std):
    """S1, S2: silu(x) / std or rms * weight + bias."""
    return x * sigmoid(x, 1.0) * (weight * scale) + bias


@triton.jit
def silu_slope(x, dy, weight, bias, extra, centre, scale, instance, batch_std):
    """The derivative of silu(x)."""
    gate = sigmoid(x, 1.0)
    flow = dy * gate
    by_weight = flow * x
    return by_weight * (1.0 - gate) + flow, dy, by_weight, 0.0, 0.0, 0.0


@triton.jit
def frn_value(x, weight, bias, extra, centre, scale, instance, batch_std):
    """max(x / rms * weight + bias, tau)."""
    return larger(x * (weight * scale) + bias, extra)


@triton.jit
def frn_slope(x, dy, weight, bias, extra, centre, scale, instance, batch_std):
    """What passes the threshold; the rest is tau's."""
    passed = dy * share_of_maximum(x * (weight * scale) + bias, extra)
    return passed, passed, passed * x, dy - passed, 0.0, 0.0


@triton.jit
def norm_relu_value(x, weight, bias, extra, centre, scale, instance, batch_std):
    """relu((x - mean) / std * weight + bias)."""
    return larger((x - centre) * (weight * scale) + bias, 0.0)


@triton.jit
def norm_relu_slope(x, dy, weight, bias, extra, centre, scale, instance, batch_std):
    """What passes the relu."""
    from_centre = x - centre
    flow = tl.where(from_centre * (weight * scale) + bias <= 0.0, 0.0, dy)
    return flow, flow, flow * from_centre, 0.0, 0.0, 0.0


@triton.jit
def norm_silu_value(x, weight, bias, extra, centre, scale, instance, batch_std):
    """silu((x - mean) / std * weight + bias)."""
    z = (x - centre) * (weight * scale) + bias
    return z * sigmoid(z, 1.0)


@triton.jit
def norm_silu_slope(x, dy, weight, bias, extra, centre, scale, instance, batch_std):
    """The derivative of silu at the normalized value."""
    from_centre = x - centre
    z = from_centre * (weight * scale) + bias
    gate = sigmoid(z, 1.0)
    flow = dy * gate * (z * (1.0 - gate) + 1.0)
    return flow, flow, flow * from_centre, 0.0, 0.0, 0.0


@triton.jit
def over_maximum(x, dy, d, batch_std):
    """For x / max(batch_std, d): dy / max, x / max, and what flows into d and into batch_std, up to -1."""
    q = 1.0 / larger(batch_std, d)
    flow = dy * q
    scaled = x * q
    product = flow * scaled
    through_d = product * share_of_maximum(d, batch_std)
    return flow, scaled, through_d, product - through_d


@triton.jit
def b0_value(x, weight, bias, extra, centre, scale, instance, batch_std):
    """x / max(batch_std, v * x + instance_std) * weight + bias."""
    return x / larger(batch_std, extra * x + instance) * weight + bias


@triton.jit
def b0_slope(x, dy, weight, bias, extra, centre, scale, instance, batch_std):
    """d = v * x + instance_std."""
    flow, scaled, through_d, through_batch = over_maximum(x, dy, extra * x + instance, batch_std)
    return flow - through_d * extra, dy, dy * scaled, through_d * x, through_d, through_batch


@triton.jit
def b1_value(x, weight, bias, extra, centre, scale, instance, batch_std):
    """x / max(batch_std, (x + 1) * instance_rms) * weight + bias."""
    return x / larger(batch_std, (x + 1.0) * instance) * weight + bias


@triton.jit
def b1_slope(x, dy, weight, bias, extra, centre, scale, instance, batch_std):
    """d = (x + 1) * instance_rms."""
    flow, scaled, through_d, through_batch = over_maximum(x, dy, (x + 1.0) * instance, batch_std)
    return flow - through_d * instance, dy, dy * scaled, 0.0, through_d * x + through_d, through_batch


@triton.jit
def b2_value(x, weight, bias, extra, centre, scale, instance, batch_std):
    """x / max(batch_std, instance_rms - x) * weight + bias."""
    return x / larger(batch_std, instance - x) * weight + bias


@triton.jit
def b2_slope(x, dy, weight, bias, extra, centre, scale, instance, batch_std):
    """d = instance_rms - x."""
    flow, scaled, through_d, through_batch = over_maximum(x, dy, instance - x, batch_std)
    return flow + through_d, dy, dy * scaled, 0.0, through_d, through_batch


@dataclass(frozen=True)
class Row:
    """A layer's functions, and which statistics they need.

    sample: of each sample's group or channel. batch: of the batch; with both, scale is 1. grouped: over groups rather
    than channels. centred: second moments about the mean. subtracts: the mean is taken from x, so a gradient flows
    through it. extra: has v or tau, whose gradient is extra_factor * the sum, times weight and scale if `extra_scaled`.
    """

    value: Any
    slope: Any
    sample: bool = True
    batch: bool = False
    grouped: bool = False
    centred: bool = True
    subtracts: bool = False
    extra: bool = False
    extra_factor: float = 1.0
    extra_scaled: bool = False

    @property
    def squares_alone(self) -> bool:
        """Only the mean of squares is needed: taken as it is, so that one infinite value leaves the others finite."""
        return not self.centred and not self.batch

    @property
    def sums(self) -> int:
        """How many sums a channel: bias, weight, extra, and with both kinds of statistics two that flow into them."""
        return 5 if self.sample and self.batch else 3


def _norm(value: Any, slope: Any, *, batch: bool) -> Row:
    return Row(value, slope, sample=not batch, batch=batch, grouped=not batch, subtracts=True)


ROWS = {
    "evonorm-s0": Row(s0_value, s0_slope, grouped=True, extra=True, extra_scaled=True),
    "evonorm-s1": Row(silu_value, silu_slope, grouped=True),
    "evonorm-s2": Row(silu_value, silu_slope, grouped=True, centred=False),
    "evonorm-b0": Row(b0_value, b0_slope, batch=True, extra=True, extra_factor=-1.0, extra_scaled=True),
    "evonorm-b1": Row(b1_value, b1_slope, batch=True, centred=False),
    "evonorm-b2": Row(b2_value, b2_slope, batch=True, centred=False),
    "frn-tlu": Row(frn_value, frn_slope, centred=False, extra=True),
    "bn-relu": _norm(norm_relu_value, norm_relu_slope, batch=True),
    "bn-silu": _norm(norm_silu_value, norm_silu_slope, batch=True),
    "gn-relu": _norm(norm_relu_value, norm_relu_slope, batch=False),
    "gn-silu": _norm(norm_silu_value, norm_silu_slope, batch=False),
}
