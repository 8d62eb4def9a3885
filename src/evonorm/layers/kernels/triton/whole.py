"""Forward and backward in one kernel each, where a program has all positions of whole groups: nothing to wait for.

Where a tile holds them (HELD), x is read once; otherwise twice, the second time from cache. stats: (N, 2, C), mean and
variance (or 0 and mean of squares) in force at each channel: of its group where statistics are a group's. sums: (N,
chunks, SUMS, C), the shares of the gradients of bias, weight and extra. EACH: weight and bias are (N, C), else (C,).
"""

from __future__ import annotations

import triton
import triton.language as tl

from evonorm.layers.kernels.triton.sums import fed_back, keep_sums
from evonorm.layers.kernels.triton.tiles import (
    STAGES,
    channels,
    first_of_group,
    in_force,
    keep,
    merged,
    moments,
    parameter,
    place,
    read,
    sample_moments,
    together,
    typical,
    write,
)


@triton.jit
def whole_kernel(
    x, weight, bias, extra, batch, stats, y, C, S, size, units, tiles, eps,
    VALUE: tl.constexpr, SAMPLE: tl.constexpr, BATCH: tl.constexpr, CENTRED: tl.constexpr, MEAN: tl.constexpr,
    EACH: tl.constexpr, MODE: tl.constexpr, HELD: tl.constexpr, LAST: tl.constexpr,
    ALIGN: tl.constexpr, CH: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """A sample's whole groups: statistics, then y. HELD: all positions are one tile, read once; else read twice.

    MEAN: moments are about the mean; else they are of squares alone.
    """
    n, chunk, tile = place(tiles, 1)
    first = tile * units * ALIGN
    c, live = channels(first, tl.minimum(first + units * ALIGN, C), CH)
    s = tl.arange(0, P)
    if HELD:
        value, there = read(x, n, c, live, s, S, C, S, LAST)
        number = together(tl.where(live, 1.0, 0.0), live, size, MODE, CH) * S
        number = tl.maximum(number, 1.0)
        if MEAN:
            mean = together(tl.sum(value, 1), live, size, MODE, CH) / number
            gaps = tl.where(there, value - mean[:, None], 0.0)
            correction = together(tl.sum(gaps, 1), live, size, MODE, CH) / number
            var = together(tl.sum(gaps * gaps, 1), live, size, MODE, CH) / number - correction * correction
            mean += correction
        else:
            mean = tl.zeros([CH], tl.float32)
            var = together(tl.sum(value * value, 1), live, size, MODE, CH) / number
    else:
        mean, square = moments(x, n, c, live, 0, S, C, S, MEAN, LAST, CH, P)
        if MEAN:
            lead = typical(x, n, first_of_group(c, first, size, MODE, CH), live, C, S, LAST)
            mean += typical(x, n, c, live, C, S, LAST) - lead
        mean, square, number = merged(mean, square, S, live, size, MODE, CH)
        var = square / (number * S)
        if MEAN:
            mean += lead
    if stats is not None:
        keep(stats, mean, var, n, c, live, C)
    centre, scale, instance, batch_std = in_force(mean, var, batch, c, live, C, eps, SAMPLE, BATCH, CENTRED, CH)
    w = parameter(weight, n, c, live, C, EACH, 1.0, CH)[:, None]
    b = parameter(bias, n, c, live, C, EACH, 0.0, CH)[:, None]
    e = parameter(extra, n, c, live, C, False, 0.0, CH)[:, None]
    if HELD:
        found = VALUE(value, w, b, e, centre[:, None], scale[:, None], instance[:, None], batch_std[:, None])
        write(y, found, there, n, c, s, C, S, LAST)
    else:
        for at in tl.range(0, S, P, num_stages=STAGES):
            value, there = read(x, n, c, live, at + s, S, C, S, LAST)
            found = VALUE(value, w, b, e, centre[:, None], scale[:, None], instance[:, None], batch_std[:, None])
            write(y, found, there, n, c, at + s, C, S, LAST)


@triton.jit
def whole_backward_kernel(
    x, dy, weight, bias, extra, batch, stats, dx, sums, C, S, size, units, tiles, chunks, length, eps,
    SLOPE: tl.constexpr, SAMPLE: tl.constexpr, BATCH: tl.constexpr, CENTRED: tl.constexpr, SUBTRACTS: tl.constexpr,
    EXTRA: tl.constexpr, FACTOR: tl.constexpr, SCALED: tl.constexpr, SUMS: tl.constexpr,
    EACH: tl.constexpr, MODE: tl.constexpr, HELD: tl.constexpr, LAST: tl.constexpr,
    ALIGN: tl.constexpr, CH: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """A sample's whole groups: the sums, then dx; batch statistics are constants. HELD: read once; else twice.

    Rows with statistics of the batch alone have nothing to wait for: theirs may be cut into chunks.
    """
    n, chunk, tile = place(tiles, chunks)
    first = tile * units * ALIGN
    c, live = channels(first, tl.minimum(first + units * ALIGN, C), CH)
    s = tl.arange(0, P)
    mean, var = sample_moments(stats, n, c, live, C, SAMPLE, CH)
    centre, scale, instance, batch_std = in_force(mean, var, batch, c, live, C, eps, SAMPLE, BATCH, CENTRED, CH)
    w = parameter(weight, n, c, live, C, EACH, 1.0, CH)
    w2 = w[:, None]
    b2 = parameter(bias, n, c, live, C, EACH, 0.0, CH)[:, None]
    e2 = parameter(extra, n, c, live, C, False, 0.0, CH)[:, None]
    centre2 = centre[:, None]
    scale2 = scale[:, None]
    instance2 = instance[:, None]
    std2 = batch_std[:, None]
    start = chunk * length
    stop = tl.minimum(start + length, S)
    if HELD:
        value, there = read(x, n, c, live, start + s, stop, C, S, LAST)
        flow, there = read(dy, n, c, live, start + s, stop, C, S, LAST)
        h, bias_sum, weight_sum, extra_sum, instance_sum, by_batch = SLOPE(
            value, flow, w2, b2, e2, centre2, scale2, instance2, std2
        )
    else:
        bias_sum = tl.zeros([CH, P], tl.float32)
        weight_sum = tl.zeros([CH, P], tl.float32)
        extra_sum = tl.zeros([CH, P], tl.float32)
        instance_sum = tl.zeros([CH, P], tl.float32)
        for at in tl.range(start, stop, P, num_stages=STAGES):
            value, there = read(x, n, c, live, at + s, stop, C, S, LAST)
            flow, there = read(dy, n, c, live, at + s, stop, C, S, LAST)
            h, by_bias, by_weight, by_extra, by_instance, by_batch = SLOPE(
                value, flow, w2, b2, e2, centre2, scale2, instance2, std2
            )
            bias_sum += by_bias
            weight_sum += by_weight
            if EXTRA:
                extra_sum += by_extra
            if SUMS == 5:
                instance_sum += by_instance
    # Beyond the last position there is x = 0, whose slope may be NaN where a statistic is, but no cotangent.
    to_bias = tl.sum(bias_sum, 1)
    to_weight = tl.sum(weight_sum, 1)
    to_extra = to_bias
    if EXTRA:
        to_extra = tl.sum(extra_sum, 1)
    to_instance = to_bias
    if SUMS == 5:
        to_instance = tl.sum(instance_sum, 1)
    keep_sums(
        sums, n * chunks + chunk, c, live, C, to_bias, to_weight, to_extra, to_instance, to_bias, w, scale,
        EXTRA, FACTOR, SCALED, SUMS,
    )  # fmt: skip
    kappa = tl.zeros([CH], tl.float32)
    lam = tl.zeros([CH], tl.float32)
    if SAMPLE and BATCH:
        kappa = -w * to_instance / (instance * S)
        if not CENTRED:
            lam = kappa * centre
    elif SAMPLE:
        kappa, lam = fed_back(
            together(w * (to_weight * scale), live, size, MODE, CH),
            together(w * to_bias, live, size, MODE, CH),
            scale,
            together(tl.where(live, 1.0, 0.0), live, size, MODE, CH),
            S,
            SUBTRACTS,
        )
    alpha = (w * scale)[:, None]
    kappa2 = kappa[:, None]
    lam2 = lam[:, None]
    if HELD:
        found = alpha * h
        if SAMPLE:
            found += kappa2 * (value - centre2) + lam2
        write(dx, found, there, n, c, start + s, C, S, LAST)
    else:
        for at in tl.range(start, stop, P, num_stages=STAGES):
            value, there = read(x, n, c, live, at + s, stop, C, S, LAST)
            flow, there = read(dy, n, c, live, at + s, stop, C, S, LAST)
            h, by_bias, by_weight, by_extra, by_instance, by_batch = SLOPE(
                value, flow, w2, b2, e2, centre2, scale2, instance2, std2
            )
            found = alpha * h
            if SAMPLE:
                found += kappa2 * (value - centre2) + lam2
            write(dx, found, there, n, c, at + s, C, S, LAST)
