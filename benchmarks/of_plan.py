"""How Triton's kernels cut the maps that matter: passes over memory and programs, as planned, not as measured."""

from __future__ import annotations

from evonorm.layers.kernels.triton import plan
from evonorm.layers.kernels.triton.plan import Sizes, Tiling

SHAPES = (
    (256, 256, 56, 56),
    (128, 96, 32, 32),
    (256, 64, 112, 112),
    (256, 64, 56, 56),
    (256, 128, 56, 56),
    (256, 128, 28, 28),
    (256, 256, 28, 28),
    (256, 256, 14, 14),
    (256, 512, 14, 14),
    (256, 512, 7, 7),
    (2, 256, 200, 304),
    (1, 64, 112, 112),
    (1, 256, 56, 56),
    (1, 512, 7, 7),
)


def planned() -> str:
    """A row a shape, in bfloat16, channels-last, 32 groups; in training."""
    lines = ["| x | S0 forward | S0 backward | B0 forward and backward |", "|---|---|---|---|"]
    for n, c, height, width in SHAPES:
        sizes = Sizes(n, c, height * width, 32, 2, True)
        cut = plan.split(sizes, plan.LIMITS)
        ways = [_way(sizes, cut, backward=backward) for backward in (False, True)]
        batched = f"3 and 5; {programs(sizes, cut)}"
        lines.append(f"| ({n}, {c}, {height}, {width}) | {ways[0]} | {ways[1]} | {batched} |")
    return "\n".join(lines)


def programs(sizes: Sizes, cut: Tiling) -> int:
    """Of a pass over x."""
    return sizes.n * cut.chunks * cut.tiles


def _way(sizes: Sizes, cut: Tiling, *, backward: bool) -> str:
    whole = plan.whole(sizes, plan.LIMITS, backward=backward)
    if whole is None:
        return f"{5 if backward else 3}; {programs(sizes, cut)}"
    again = "" if whole.held else " + 2 from cache" if backward else " + 1 from cache"
    return f"{3 if backward else 2}{again}; {programs(sizes, whole)}"
