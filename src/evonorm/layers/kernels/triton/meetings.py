"""What happens between the passes over x: chunks are merged into samples, samples into the batch and into gradients.

Small kernels over small tensors, named as in passes.py. Every sum is taken in an order that sizes alone decide.
"""

from __future__ import annotations

import triton
import triton.language as tl

from evonorm.layers.kernels.triton.sums import fed_back, of_chunks
from evonorm.layers.kernels.triton.tiles import (
    ONE,
    channels,
    first_of_group,
    in_force,
    keep,
    merged,
    parameter,
    place,
    sample_moments,
    together,
    typical,
)


@triton.jit
def merge_chunks(partial, n, c, live, C, S, chunks, length, CH: tl.constexpr, K: tl.constexpr):
    """Mean - typical value and summed squares of each channel over all positions, from those of K or fewer chunks."""
    k = tl.arange(0, K)
    there = live[None, :] & (k < chunks)[:, None]
    at = partial + (n * chunks + k[:, None]) * 2 * C + c[None, :]
    counts = tl.where(k < chunks, tl.minimum(length, S - k * length), 0).to(tl.float32)[:, None]
    means = tl.load(at, mask=there, other=0.0)
    mean = tl.sum(counts * means, 0) / S
    gaps = means - mean[None, :]
    correction = tl.sum(counts * gaps, 0) / S
    between = tl.sum(tl.where(there, counts * gaps * gaps, 0.0), 0) - S * correction * correction
    return mean + correction, tl.sum(tl.load(at + C, mask=there, other=0.0), 0) + between


@triton.jit
def meet_kernel(
    x, partial, stats, C, S, size, units, tiles, chunks, length,
    MEAN: tl.constexpr, MODE: tl.constexpr, LAST: tl.constexpr,
    ALIGN: tl.constexpr, CH: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """stats of whole groups from the moments of chunks: several groups, or one of any size, CH channels at a time."""
    n, chunk, tile = place(tiles, 1)
    first = tile * units * ALIGN
    end = tl.minimum(first + units * ALIGN, C)
    mean = tl.zeros([CH], tl.float32)
    square = tl.zeros([CH], tl.float32)
    number = tl.zeros([CH], tl.float32)
    lead = tl.zeros([CH], tl.float32)
    for at in range(first, end, CH):
        c, live = channels(at, end, CH)
        own_mean, own_square = merge_chunks(partial, n, c, live, C, S, chunks, length, CH, K)
        if MEAN:
            lead = typical(x, n, first_of_group(c, first, size, MODE, CH), live | (MODE == ONE), C, S, LAST)
            own_mean += typical(x, n, c, live, C, S, LAST) - lead
        own_mean, own_square, own_number = merged(own_mean, own_square, S, live, size, MODE, CH)
        gap = own_mean - mean
        both = number + own_number
        mean += gap * (own_number / both)
        square += own_square + gap * gap * (S * number * own_number / both)
        number = both
    for at in range(first, end, CH):
        c, live = channels(at, end, CH)
        keep(stats, lead + mean, square / (number * S), n, c, live, C)


@triton.jit
def batch_kernel(stats, batch, N, C, CH: tl.constexpr, K: tl.constexpr):
    """Mean and variance over the batch from those of its samples, which have equally many positions."""
    c, live = channels(tl.program_id(0) * CH, C, CH)
    k = tl.arange(0, K)
    total = tl.zeros([K, CH], tl.float32)
    for n in range(0, N, K):
        there = live[None, :] & (n + k < N)[:, None]
        total += tl.load(stats + (n + k[:, None]).to(tl.int64) * 2 * C + c[None, :], mask=there, other=0.0)
    mean = tl.sum(total, 0) / N
    off = tl.zeros([K, CH], tl.float32)
    squares = tl.zeros([K, CH], tl.float32)
    for n in range(0, N, K):
        there = live[None, :] & (n + k < N)[:, None]
        at = stats + (n + k[:, None]).to(tl.int64) * 2 * C + c[None, :]
        gap = tl.where(there, tl.load(at, mask=there, other=0.0) - mean[None, :], 0.0)
        off += gap
        squares += gap * gap + tl.load(at + C, mask=there, other=0.0)
    correction = tl.sum(off, 0) / N
    tl.store(batch + c, mean + correction, mask=live)
    tl.store(batch + C + c, tl.sum(squares, 0) / N - correction * correction, mask=live)


@triton.jit
def meet_backward_kernel(
    weight, stats, sums, feedback, C, S, size, units, tiles, chunks, eps,
    CENTRED: tl.constexpr, SUBTRACTS: tl.constexpr, SUMS: tl.constexpr, EACH: tl.constexpr, MODE: tl.constexpr,
    ALIGN: tl.constexpr, CH: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """feedback of whole groups from the sums of chunks: several groups, or one of any size, CH channels at a time."""
    n, chunk, tile = place(tiles, 1)
    first = tile * units * ALIGN
    end = tl.minimum(first + units * ALIGN, C)
    by_scale = tl.zeros([CH], tl.float32)
    by_centre = tl.zeros([CH], tl.float32)
    number = tl.zeros([CH], tl.float32)
    for at in range(first, end, CH):
        c, live = channels(at, end, CH)
        w = parameter(weight, n, c, live, C, EACH, 1.0, CH)
        by_scale += together(w * of_chunks(sums, 1, n, c, live, C, chunks, SUMS, CH, K), live, size, MODE, CH)
        by_centre += together(w * of_chunks(sums, 0, n, c, live, C, chunks, SUMS, CH, K), live, size, MODE, CH)
        number += together(tl.where(live, 1.0, 0.0), live, size, MODE, CH)
    for at in range(first, end, CH):
        c, live = channels(at, end, CH)
        mean, var = sample_moments(stats, n, c, live, C, True, CH)
        centre, scale, instance, batch_std = in_force(mean, var, stats, c, live, C, eps, True, False, CENTRED, CH)
        kappa, lam = fed_back(by_scale, by_centre, scale, number, S, SUBTRACTS)
        tl.store(feedback + n * 2 * C + c, kappa, mask=live)
        tl.store(feedback + n * 2 * C + C + c, lam, mask=live)


@triton.jit
def columns_kernel(
    sums, weight, dweight, dbias, dextra, totals, M, C, tiles, chunks,
    SUMS: tl.constexpr, EACH: tl.constexpr, CH: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Gradients of parameters, the second stage: sums over M chunks, always in the same order.

    Those are the whole batch's or, for gradients that are each sample's own, one sample's. totals, of the batch alone,
    are times weight.
    """
    part, chunk, tile = place(tiles, 1)
    c, live = channels(tile * CH, C, CH)
    k = tl.arange(0, K)
    own = sums + part * M * SUMS * C
    by_bias = tl.zeros([K, CH], tl.float32)
    by_weight = tl.zeros([K, CH], tl.float32)
    by_extra = tl.zeros([K, CH], tl.float32)
    by_first = tl.zeros([K, CH], tl.float32)
    by_second = tl.zeros([K, CH], tl.float32)
    for m in range(0, M, K):
        there = live[None, :] & (m + k < M)[:, None]
        row = (m + k[:, None]).to(tl.int64)
        at = own + row * SUMS * C + c[None, :]
        to_bias = tl.load(at, mask=there, other=0.0)
        to_weight = tl.load(at + C, mask=there, other=0.0)
        by_bias += to_bias
        by_weight += to_weight
        if dextra is not None:
            by_extra += tl.load(at + 2 * C, mask=there, other=0.0)
        if totals is not None:
            to_second = tl.load(at + 4 * C, mask=there, other=0.0) if SUMS == 5 else to_weight
            if EACH:
                w = parameter(weight, row // chunks, c[None, :], there, C, True, 1.0, CH)
                by_first += w * to_bias
                by_second += w * to_second
            else:
                by_second += to_second
    if dbias is not None:
        tl.store(dbias + part * C + c, tl.sum(by_bias, 0), mask=live)
    if dweight is not None:
        tl.store(dweight + part * C + c, tl.sum(by_weight, 0), mask=live)
    if dextra is not None:
        tl.store(dextra + c, tl.sum(by_extra, 0), mask=live)
    if totals is not None:
        if EACH:
            tl.store(totals + c, tl.sum(by_first, 0), mask=live)
            tl.store(totals + C + c, tl.sum(by_second, 0), mask=live)
        else:
            w = parameter(weight, part, c, live, C, False, 1.0, CH)
            tl.store(totals + c, w * tl.sum(by_bias, 0), mask=live)
            tl.store(totals + C + c, w * tl.sum(by_second, 0), mask=live)
