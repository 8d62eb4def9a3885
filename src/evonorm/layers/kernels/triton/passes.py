"""The passes over x where more programs than one have to meet: moments, y; sums, dx. Each takes a chunk of positions.

partial: (N, chunks, 2, C), moments of chunks; stats: (N, 2, C), of samples, in force at each channel; batch: (2, C).
sums: (N, chunks, SUMS, C); feedback: (N, 2, C), kappa and lambda; totals: (2, C), what flows into batch statistics, up
to -1. EACH: weight and bias are (N, C), else (C,).
"""

from __future__ import annotations

import triton
import triton.language as tl

from evonorm.layers.kernels.triton.sums import keep_sums, of_chunks
from evonorm.layers.kernels.triton.tiles import (
    STAGES,
    channels,
    in_force,
    keep,
    moments,
    parameter,
    place,
    read,
    sample_moments,
    typical,
    write,
)


@triton.jit
def moments_kernel(
    x, partial, C, S, units, tiles, chunks, length,
    MEAN: tl.constexpr, ALONE: tl.constexpr,
    LAST: tl.constexpr, ALIGN: tl.constexpr, CH: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Of each chunk of `length` positions, what `tiles.moments` gives. ALONE, a chunk is all: mean and variance."""
    n, chunk, tile = place(tiles, chunks)
    first = tile * units * ALIGN
    c, live = channels(first, tl.minimum(first + units * ALIGN, C), CH)
    start = chunk * length
    mean, square = moments(x, n, c, live, start, tl.minimum(start + length, S), C, S, MEAN, LAST, CH, P)
    if ALONE:
        square = square / S
        if MEAN:
            mean += typical(x, n, c, live, C, S, LAST)
    keep(partial, mean, square, n * chunks + chunk, c, live, C)


@triton.jit
def apply_kernel(
    x, weight, bias, extra, batch, stats, y, C, S, units, tiles, chunks, length, eps,
    VALUE: tl.constexpr, SAMPLE: tl.constexpr, BATCH: tl.constexpr, CENTRED: tl.constexpr, EACH: tl.constexpr,
    LAST: tl.constexpr, ALIGN: tl.constexpr, CH: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """y of each chunk, from statistics that are there."""
    n, chunk, tile = place(tiles, chunks)
    first = tile * units * ALIGN
    c, live = channels(first, tl.minimum(first + units * ALIGN, C), CH)
    s = tl.arange(0, P)
    mean = tl.zeros([CH], tl.float32)
    var = tl.zeros([CH], tl.float32)
    if SAMPLE:
        mean = tl.load(stats + n * 2 * C + c, mask=live, other=0.0)
        var = tl.load(stats + n * 2 * C + C + c, mask=live, other=1.0)
    centre, scale, instance, batch_std = in_force(mean, var, batch, c, live, C, eps, SAMPLE, BATCH, CENTRED, CH)
    w = parameter(weight, n, c, live, C, EACH, 1.0, CH)[:, None]
    b = parameter(bias, n, c, live, C, EACH, 0.0, CH)[:, None]
    e = parameter(extra, n, c, live, C, False, 0.0, CH)[:, None]
    start = chunk * length
    stop = tl.minimum(start + length, S)
    for at in tl.range(start, stop, P, num_stages=STAGES):
        value, there = read(x, n, c, live, at + s, stop, C, S, LAST)
        found = VALUE(value, w, b, e, centre[:, None], scale[:, None], instance[:, None], batch_std[:, None])
        write(y, found, there, n, c, at + s, C, S, LAST)


@triton.jit
def sums_kernel(
    x, dy, weight, bias, extra, batch, stats, sums, C, S, units, tiles, chunks, length, eps,
    SLOPE: tl.constexpr, SAMPLE: tl.constexpr, BATCH: tl.constexpr, CENTRED: tl.constexpr,
    EXTRA: tl.constexpr, FACTOR: tl.constexpr, SCALED: tl.constexpr, SUMS: tl.constexpr, EACH: tl.constexpr,
    LAST: tl.constexpr, ALIGN: tl.constexpr, CH: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """The sums of each chunk."""
    n, chunk, tile = place(tiles, chunks)
    first = tile * units * ALIGN
    c, live = channels(first, tl.minimum(first + units * ALIGN, C), CH)
    s = tl.arange(0, P)
    mean, var = sample_moments(stats, n, c, live, C, SAMPLE, CH)
    centre, scale, instance, batch_std = in_force(mean, var, batch, c, live, C, eps, SAMPLE, BATCH, CENTRED, CH)
    w = parameter(weight, n, c, live, C, EACH, 1.0, CH)
    b2 = parameter(bias, n, c, live, C, EACH, 0.0, CH)[:, None]
    e2 = parameter(extra, n, c, live, C, False, 0.0, CH)[:, None]
    bias_sum = tl.zeros([CH, P], tl.float32)
    weight_sum = tl.zeros([CH, P], tl.float32)
    extra_sum = tl.zeros([CH, P], tl.float32)
    instance_sum = tl.zeros([CH, P], tl.float32)
    batch_sum = tl.zeros([CH, P], tl.float32)
    start = chunk * length
    stop = tl.minimum(start + length, S)
    for at in tl.range(start, stop, P, num_stages=STAGES):
        value, there = read(x, n, c, live, at + s, stop, C, S, LAST)
        flow, there = read(dy, n, c, live, at + s, stop, C, S, LAST)
        h, by_bias, by_weight, by_extra, by_instance, by_batch = SLOPE(
            value, flow, w[:, None], b2, e2, centre[:, None], scale[:, None], instance[:, None], batch_std[:, None]
        )
        bias_sum += by_bias
        weight_sum += by_weight
        if EXTRA:
            extra_sum += by_extra
        if SUMS == 5:
            instance_sum += by_instance
            batch_sum += by_batch
    keep_sums(
        sums, n * chunks + chunk, c, live, C, tl.sum(bias_sum, 1), tl.sum(weight_sum, 1), tl.sum(extra_sum, 1),
        tl.sum(instance_sum, 1), tl.sum(batch_sum, 1), w, scale, EXTRA, FACTOR, SCALED, SUMS,
    )  # fmt: skip


@triton.jit
def apply_backward_kernel(
    x, dy, weight, bias, extra, batch, stats, sums, feedback, totals, dx,
    C, S, units, tiles, chunks, length, eps, batch_count,
    SLOPE: tl.constexpr, SAMPLE: tl.constexpr, BATCH: tl.constexpr, CENTRED: tl.constexpr, SUMS: tl.constexpr,
    EACH: tl.constexpr, THROUGH: tl.constexpr,
    LAST: tl.constexpr, ALIGN: tl.constexpr, CH: tl.constexpr, P: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """dx of each chunk, from feedback or, in rows with batch statistics, from sums and, THROUGH them, totals."""
    n, chunk, tile = place(tiles, chunks)
    first = tile * units * ALIGN
    c, live = channels(first, tl.minimum(first + units * ALIGN, C), CH)
    s = tl.arange(0, P)
    mean, var = sample_moments(stats, n, c, live, C, SAMPLE, CH)
    centre, scale, instance, batch_std = in_force(mean, var, batch, c, live, C, eps, SAMPLE, BATCH, CENTRED, CH)
    w = parameter(weight, n, c, live, C, EACH, 1.0, CH)
    b2 = parameter(bias, n, c, live, C, EACH, 0.0, CH)[:, None]
    e2 = parameter(extra, n, c, live, C, False, 0.0, CH)[:, None]
    if not BATCH:
        kappa = tl.load(feedback + n * 2 * C + c, mask=live, other=0.0)
        lam = tl.load(feedback + n * 2 * C + C + c, mask=live, other=0.0)
    else:
        kappa = tl.zeros([CH], tl.float32)
        lam = tl.zeros([CH], tl.float32)
        if SAMPLE:
            kappa = -w * of_chunks(sums, 3, n, c, live, C, chunks, SUMS, CH, K) / (instance * S)
            if not CENTRED:
                lam = kappa * centre
        if THROUGH:
            by_second = -tl.load(totals + C + c, mask=live, other=0.0) / batch_count
            if SAMPLE:
                through = by_second / batch_std
                kappa += through
                lam += through * (centre - tl.load(batch + c, mask=live, other=0.0))
            else:
                kappa = by_second * scale * scale
                lam = -tl.load(totals + c, mask=live, other=0.0) / batch_count * scale
    alpha = (w * scale)[:, None]
    start = chunk * length
    stop = tl.minimum(start + length, S)
    for at in tl.range(start, stop, P, num_stages=STAGES):
        value, there = read(x, n, c, live, at + s, stop, C, S, LAST)
        flow, there = read(dy, n, c, live, at + s, stop, C, S, LAST)
        h, by_bias, by_weight, by_extra, by_instance, by_batch = SLOPE(
            value, flow, w[:, None], b2, e2, centre[:, None], scale[:, None], instance[:, None], batch_std[:, None]
        )
        found = alpha * h + (kappa[:, None] * (value - centre[:, None]) + lam[:, None])
        write(dx, found, there, n, c, at + s, C, S, LAST)
