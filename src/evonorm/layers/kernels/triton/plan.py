"""How a job is cut into programs, by its sizes alone: nothing is timed, so that a first step is quick and the same bits
come out every time.

A tile is CH channels by P positions, both powers of two, the compiler's constants; real sizes are arguments, so that a
new shape of the same class needs no compilation.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple


class Limits(NamedTuple):
    """What the cut aims at, in values unless said otherwise.

    held_forward, held_backward: largest tile that stays in registers, so that x is read once. whole: bytes of a sample
    for one program, which reads them twice: as many programs as run at once find theirs in the second-level cache.
    loop: tile of such a program (backward, of x and dy together); tile: of one that passes over x. channels: most in a
    tile of several groups. run: bytes along channels that a channels-last tile should have. programs: enough to fill
    the chip. least: values worth a program. chunks: most that a sample is cut into.
    """

    held_forward: int = 16384
    held_backward: int = 8192
    whole: int = 131072
    loop: int = 8192
    tile: int = 4096
    channels: int = 64
    run: int = 64
    programs: int = 512
    least: int = 4096
    chunks: int = 128


LIMITS = Limits()


class Sizes(NamedTuple):
    """x: (n, c, *) with s positions in space, of `itemsize` bytes a value, and the row's groups."""

    n: int
    c: int
    s: int
    groups: int
    itemsize: int
    channels_last: bool


@dataclass(frozen=True)
class Tiling:
    """units * align channels a program, in a tile of `channels` by `positions`; `tiles` of them a sample.

    Each sample's positions are cut into `chunks` of `length`. held: the tile has all positions.
    """

    units: int
    align: int
    channels: int
    positions: int
    tiles: int
    chunks: int
    length: int
    held: bool

    @property
    def span(self) -> int:
        """Channels a program."""
        return self.units * self.align

    def warps(self, values: int) -> int:
        """Warps for so many values a thread."""
        return min(16, max(1, self.channels * self.positions // (32 * values)))

    def __str__(self) -> str:
        cut = f"{self.chunks} chunks of {self.length} positions" if self.chunks > 1 else "all positions"
        kept = "held" if self.held else "read by blocks"
        return f"{self.span} channels x {cut}, tile {self.channels} x {self.positions} {kept}"


def up(value: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << max(0, value - 1).bit_length()


def ceil(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


@functools.lru_cache(1024)
def whole(sizes: Sizes, limits: Limits, *, backward: bool) -> Tiling | None:
    """A program for all positions of some groups of a sample; None where they are too many, or programs too few."""
    n, c, s, groups = sizes.n, sizes.c, sizes.s, sizes.groups
    size = c // groups
    held = limits.held_backward if backward else limits.held_forward
    most = limits.channels if size > 1 else 4 * limits.channels
    run = ceil(limits.run, size * sizes.itemsize) if sizes.channels_last else 1
    wanted = max(run, ceil(limits.least, size * up(s)))
    spread = max(n * groups // limits.programs, limits.least // (4 * size * up(s)))
    for fitting in (held // up(s) // size, limits.whole // (size * s * sizes.itemsize)):
        together = max(1, min(groups, most // size, fitting, wanted, spread))
        together = ceil(groups, ceil(groups, together))
        span = size * _aligned(sizes, size, together, fitting, most)
        if up(span) * up(s) <= held:
            break
    few = n * ceil(c, span) < limits.programs // 4 and span * s > 2 * limits.least
    if span * s * sizes.itemsize > limits.whole or few:
        return None
    channels, positions = up(span), up(s)
    if channels * positions <= held:
        return _tiling(sizes, span, channels, positions, 1, held=True)
    return _tiling(sizes, span, channels, max(1, min(positions, limits.loop // (2 if backward else 1) // channels)), 1)


def _aligned(sizes: Sizes, size: int, together: int, fitting: int, most: int) -> int:
    """Groups a program, so that each load of a channels-last tile has 16 bytes: more or, if those do not fit, fewer."""
    vector = 16 // sizes.itemsize
    if not sizes.channels_last or sizes.c % vector:
        return together
    step = vector // math.gcd(vector, size)
    rounded = ceil(together, step) * step
    if rounded > fitting >= step:
        rounded = together // step * step
    return rounded if rounded * size <= most and rounded <= sizes.groups else together


@functools.lru_cache(1024)
def split(sizes: Sizes, limits: Limits, *, chunks: int | None = None) -> Tiling:
    """Any channels, and positions in as many chunks as fill the chip (or `chunks`), for passes that wait for others."""
    if sizes.channels_last:
        # Small maps leave room for more channels. A narrower tile where a wide one would be mostly empty at the end.
        most = min(up(sizes.c), max(limits.channels, limits.tile // up(sizes.s)), limits.tile)
        widths = (most >> i for i in range(most.bit_length()) if (most >> i) * sizes.itemsize >= limits.run)
        channels = next((width for width in widths if ceil(sizes.c, width) * width * 8 <= sizes.c * 9), most)
        positions = min(up(sizes.s), limits.tile // channels)
    else:
        positions = min(up(sizes.s), max(1, limits.tile // 4))
        channels = min(up(sizes.c), max(1, limits.tile // positions))
    if chunks is None:
        wanted = ceil(limits.programs, sizes.n * ceil(sizes.c, channels))
        chunks = max(1, min(wanted, limits.chunks, ceil(sizes.s, positions)))
    return _tiling(sizes, channels, channels, positions, chunks)


@functools.lru_cache(1024)
def meeting(sizes: Sizes, limits: Limits, *, chunks: int) -> Tiling:
    """Whole groups, for merging what `split` took of them; a group of more channels than a tile is gone through."""
    size = sizes.c // sizes.groups
    most = max(1, min(limits.channels, limits.tile // up(chunks)))
    span = size * max(1, min(most // size, sizes.groups))
    return _tiling(sizes, span, min(up(span), most), 1, 1)


def _tiling(sizes: Sizes, span: int, channels: int, positions: int, chunks: int, *, held: bool = False) -> Tiling:
    align = min(16, span & -span)
    length = sizes.s if chunks == 1 else ceil(ceil(sizes.s, chunks), positions) * positions
    return Tiling(span // align, align, channels, positions, ceil(sizes.c, span), ceil(sizes.s, length), length, held)
