"""How a job is cut into programs, by its sizes alone: nothing is timed, so that a first step is quick and the same bits
come out every time.

A tile is CH channels by P positions, both powers of two, the compiler's constants; real sizes are arguments, so that a
new shape of the same class needs no compilation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Limits(NamedTuple):
    """What the cut aims at. Counts of values unless said otherwise.

    held_forward, held_backward: largest tile that stays in registers, so that x is read once. whole: largest part of a
    sample for one program, which reads it twice, from cache the second time. tile: of a loop. channels: most in a tile
    of several groups. run: bytes along channels that a channels-last tile should have at least. programs: enough to
    fill the chip. least: values that are worth a program. chunks: most that a sample is cut into.
    """

    held_forward: int = 32768
    held_backward: int = 16384
    whole: int = 65536
    tile: int = 4096
    channels: int = 64
    run: int = 64
    programs: int = 512
    least: int = 4096
    chunks: int = 64


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

    @property
    def warps(self) -> int:
        """About 16 values a thread, or 64 where a tile is held."""
        values = self.channels * self.positions
        return min(16, max(1, values // (32 * 16))) if not self.held else min(16, max(1, values // (32 * 32)))

    def __str__(self) -> str:
        cut = f"{self.chunks} chunks of {self.length} positions" if self.chunks > 1 else "all positions"
        kept = "held" if self.held else "read by blocks"
        return f"{self.span} channels x {cut}, tile {self.channels} x {self.positions} {kept}, {self.warps} warps"


def up(value: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << max(0, value - 1).bit_length()


def ceil(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def whole(sizes: Sizes, limits: Limits, *, backward: bool) -> Tiling | None:
    """A program for all positions of some groups of a sample; None where they are too many, or programs too few."""
    n, c, s, groups = sizes.n, sizes.c, sizes.s, sizes.groups
    size = c // groups
    held = limits.held_backward if backward else limits.held_forward
    most = limits.channels if size > 1 else 4 * limits.channels
    fitting = min(most, held // up(s)) // size or limits.whole // (size * s)
    run = ceil(limits.run, size * sizes.itemsize) if sizes.channels_last else 1
    wanted = max(run, ceil(limits.least, size * up(s)))
    together = max(1, min(groups, fitting, wanted, n * groups // limits.programs))
    span = size * ceil(groups, ceil(groups, together))
    few = n * ceil(c, span) < limits.programs // 4 and span * s > 2 * limits.least
    if span * s > limits.whole or few:
        return None
    channels, positions = up(span), up(s)
    if channels * positions <= held:
        return _tiling(sizes, span, channels, positions, 1, held=True)
    return _tiling(sizes, span, channels, max(1, min(positions, limits.tile // channels)), 1)


def split(sizes: Sizes, limits: Limits, *, chunks: int | None = None) -> Tiling:
    """Any channels, and positions in as many chunks as fill the chip (or `chunks`), for passes that wait for others."""
    if sizes.channels_last:
        channels = min(up(sizes.c), max(limits.channels, limits.tile // up(sizes.s)), limits.tile)
        positions = min(up(sizes.s), limits.tile // channels)
    else:
        positions = min(up(sizes.s), limits.tile // 4)
        channels = min(up(sizes.c), max(1, limits.tile // positions))
    if chunks is None:
        wanted = ceil(limits.programs, sizes.n * ceil(sizes.c, channels))
        chunks = max(1, min(wanted, limits.chunks, ceil(sizes.s, positions)))
    return _tiling(sizes, channels, channels, positions, chunks)


def meeting(sizes: Sizes, limits: Limits) -> Tiling:
    """Whole groups, for merging what `split` took of them; a group of more channels than a tile is gone through."""
    size = sizes.c // sizes.groups
    span = size * max(1, min(limits.channels // size, sizes.groups))
    return _tiling(sizes, span, min(up(span), limits.channels), 1, 1)


def _tiling(sizes: Sizes, span: int, channels: int, positions: int, chunks: int, *, held: bool = False) -> Tiling:
    align = min(16, span & -span)
    length = sizes.s if chunks == 1 else ceil(ceil(sizes.s, chunks), positions) * positions
    return Tiling(span // align, align, channels, positions, ceil(sizes.c, span), ceil(sizes.s, length), length, held)
