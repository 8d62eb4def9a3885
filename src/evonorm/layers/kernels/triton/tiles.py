"""What every kernel is made of: which channels and positions a program has, statistics in force, moments, groups.

A program has a tile of CH channels by P positions of one sample: channels c0 .. c0 + span with span = units * ALIGN,
and c0 a multiple of span. ALIGN, a power of two known to the compiler, is what lets it load whole vectors. Offsets are
64-bit, so that x may have any size. LAST: channels-last, (n, s, c) in memory; else (n, c, s).

Groups within a tile, MODE: OWN, each channel is one; ONE, all of the tile's channels are one; SEVERAL, each `size`
channels are one.
"""

from __future__ import annotations

import triton
import triton.language as tl

from evonorm.layers.kernels.triton import INTERPRETED

INTERPRETER = tl.constexpr(INTERPRETED)
# Tiles under way at once in a loop over positions: two are loaded while one is computed with.
STAGES = tl.constexpr(3)
OWN = tl.constexpr(0)
ONE = tl.constexpr(1)
SEVERAL = tl.constexpr(2)


@triton.jit
def place(tiles, chunks):
    """(n, chunk, tile) of this program; tiles first, so that programs near in time are near in channels-last memory."""
    program = tl.program_id(0)
    rest = program // tiles
    return (rest // chunks).to(tl.int64), rest % chunks, program % tiles


@triton.jit
def channels(first, end, CH: tl.constexpr):
    """Channels from `first` on, and which of them are below `end`."""
    c = first + tl.arange(0, CH)
    return c.to(tl.int64), c < end


@triton.jit
def offsets(n, c, s, C, S, LAST: tl.constexpr):
    """Where x has channels c at positions s of sample n: (CH, P)."""
    if LAST:
        return n * C * S + (c[:, None] + s[None, :].to(tl.int64) * C)
    else:
        return n * C * S + (c[:, None] * S + s[None, :])


@triton.jit
def read(x, n, c, live, s, stop, C, S, LAST: tl.constexpr):
    """A tile of x in float32, 0 where there is none, and where there is."""
    there = live[:, None] & (s < stop)[None, :]
    return tl.load(x + offsets(n, c, s, C, S, LAST), mask=there, other=0.0).to(tl.float32), there


@triton.jit
def narrowed(value, TO: tl.constexpr):
    """The value in dtype TO, to the nearest, ties to even, as on a GPU; Triton's interpreter only cuts."""
    if INTERPRETER and TO == tl.bfloat16:
        bits = value.to(tl.uint32, bitcast=True)
        even = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
        value = tl.where(value == value, even, value)
    return value.to(TO)


@triton.jit
def write(y, value, there, n, c, s, C, S, LAST: tl.constexpr):
    """Rounds a tile to the dtype of y, once, and stores it."""
    tl.store(y + offsets(n, c, s, C, S, LAST), narrowed(value, y.dtype.element_ty), mask=there)


@triton.jit
def typical(x, n, c, live, C, S, LAST: tl.constexpr):
    """Of three values of each channel the middle one: a shift that keeps what is summed small, though one be wild."""
    base = x + n * C * S + (c if LAST else c * S)
    step = C if LAST else 1
    first = tl.load(base, mask=live, other=0.0).to(tl.float32)
    second = tl.load(base + tl.cast(S // 2, tl.int64) * step, mask=live, other=0.0).to(tl.float32)
    third = tl.load(base + tl.cast(S - 1, tl.int64) * step, mask=live, other=0.0).to(tl.float32)
    return tl.maximum(tl.minimum(first, second), tl.minimum(tl.maximum(first, second), third))


@triton.jit
def parameter(p, n, c, live, C, EACH: tl.constexpr, OTHERWISE: tl.constexpr, CH: tl.constexpr):
    """A parameter at each channel, EACH: sample n's own, or what it counts as where it is not given."""
    if p is None:
        return tl.full([CH], OTHERWISE, tl.float32)
    elif EACH:
        return tl.load(p + n * C + c, mask=live, other=0.0)
    else:
        return tl.load(p + c, mask=live, other=0.0)


@triton.jit
def together(value, live, size, MODE: tl.constexpr, CH: tl.constexpr):
    """The sum over each channel's group, at each channel: by comparing groups, so that any size will do."""
    if MODE == OWN:
        return value
    elif MODE == ONE:
        return tl.zeros([CH], tl.float32) + tl.sum(tl.where(live, value, 0.0), 0)
    else:
        group = tl.arange(0, CH) // size
        same = (group[:, None] == group[None, :]) & live[None, :]
        return tl.sum(tl.where(same, value[None, :], 0.0), 1)


@triton.jit
def first_of_group(c, first, size, MODE: tl.constexpr, CH: tl.constexpr):
    """The first channel of each channel's group."""
    if MODE == OWN:
        return c
    elif MODE == ONE:
        return tl.zeros([CH], tl.int64) + first
    else:
        return c - tl.arange(0, CH) % size


@triton.jit
def moments(
    x, n, c, live, start, stop, C, S, CENTRED: tl.constexpr, LAST: tl.constexpr, CH: tl.constexpr, P: tl.constexpr
):
    """Of positions [start, stop): mean - typical value, summed squares about the mean; not CENTRED: 0 and about zero.

    Each lane keeps a mean and squares of its own (Welford), merged at the end (Chan): a mean far from zero costs no
    precision, and a wild value harms its lane's share alone.
    """
    s = tl.arange(0, P)
    squares = tl.zeros([CH, P], tl.float32)
    if CENTRED:
        shift = typical(x, n, c, live, C, S, LAST)[:, None]
        means = tl.zeros([CH, P], tl.float32)
        seen = 0.0
        for at in tl.range(start, stop, P, num_stages=STAGES):
            value, there = read(x, n, c, live, at + s, stop, C, S, LAST)
            seen += 1.0
            gap = tl.where(there, value - shift - means, 0.0)
            means += gap * (1.0 / seen)
            squares += gap * (gap - gap * (1.0 / seen))
        # How many positions each lane had.
        counts = (tl.maximum(stop - start - s + P - 1, 0) // P).to(tl.float32)[None, :]
        total = tl.cast(stop - start, tl.float32)  # may be the constant 1
        mean = tl.sum(counts * means, 1) / total
        gaps = means - mean[:, None]
        correction = tl.sum(counts * gaps, 1) / total
        square = tl.sum(squares + counts * gaps * gaps, 1) - total * correction * correction
        return mean + correction, square
    else:
        for at in tl.range(start, stop, P, num_stages=STAGES):
            value, there = read(x, n, c, live, at + s, stop, C, S, LAST)
            squares += value * value
        return tl.zeros([CH], tl.float32), tl.sum(squares, 1)


@triton.jit
def merged(mean, square, count, live, size, MODE: tl.constexpr, CH: tl.constexpr):
    """Of channels' means and summed squares over `count` positions: those of groups, and their numbers of channels."""
    if MODE == OWN:
        return mean, square, tl.full([CH], 1.0, tl.float32)
    else:
        number = tl.maximum(together(live.to(tl.float32), live, size, MODE, CH), 1.0)
        centre = together(mean, live, size, MODE, CH) / number
        gap = mean - centre
        correction = together(gap, live, size, MODE, CH) / number
        between = together(gap * gap, live, size, MODE, CH) - number * correction * correction
        return centre + correction, together(square, live, size, MODE, CH) + count * between, number


@triton.jit
def in_force(
    mean, var, batch, c, live, C, eps,
    SAMPLE: tl.constexpr, BATCH: tl.constexpr, CENTRED: tl.constexpr, CH: tl.constexpr,
):  # fmt: skip
    """centre, scale, instance and batch_std of each channel (see rows.py); mean, var: those of the sample."""
    if not BATCH:
        scale = tl.div_rn(1.0, tl.sqrt_rn(var + eps))
        return mean, scale, scale, scale
    elif not SAMPLE:
        scale = tl.div_rn(1.0, tl.sqrt_rn(tl.load(batch + C + c, mask=live, other=1.0) + eps))
        return tl.load(batch + c, mask=live, other=0.0), scale, scale, scale
    else:
        batch_std = tl.sqrt_rn(tl.load(batch + C + c, mask=live, other=1.0) + eps)
        second = var if CENTRED else var + mean * mean
        return mean, tl.full([CH], 1.0, tl.float32), tl.sqrt_rn(second + eps), batch_std


@triton.jit
def keep(stats, mean, var, n, c, live, C):
    """Writes mean and variance of each channel."""
    tl.store(stats + n * 2 * C + c, mean, mask=live)
    tl.store(stats + n * 2 * C + C + c, var, mask=live)


@triton.jit
def sample_moments(stats, n, c, live, C, SAMPLE: tl.constexpr, CH: tl.constexpr):
    """Mean and variance in force at each channel."""
    mean = tl.zeros([CH], tl.float32)
    var = tl.zeros([CH], tl.float32)
    if SAMPLE:
        mean = tl.load(stats + n * 2 * C + c, mask=live, other=0.0)
        var = tl.load(stats + n * 2 * C + C + c, mask=live, other=1.0)
    return mean, var
