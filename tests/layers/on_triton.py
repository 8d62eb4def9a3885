"""Where Triton's kernels are tested: without a GPU in Triton's interpreter, on CPU tensors; with one, on it.

Whoever imports this is skipped where there is no Triton. Each way through the kernels is forced on small shapes by
lower limits: what a program holds, what it reads twice, what several programs meet for.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from evonorm.layers.kernels import triton as room
from evonorm.layers.kernels.call import APPLY, REDUCE, Call, Gradients
from evonorm.layers.kernels.cpu import library
from evonorm.layers.table import TABLE, get
from tests.layers.yardstick import check

if importlib.util.find_spec("triton") is None:
    if os.environ.get("CI"):
        raise RuntimeError("CI must test Triton's kernels: install triton")
    pytest.skip("Triton is not installed", allow_module_level=True)

from evonorm.layers.kernels.triton import INTERPRETED, plan

DEVICE = "cpu" if INTERPRETED else "cuda"
if DEVICE == "cuda" and not torch.cuda.is_available():
    pytest.skip("no CUDA device, and Triton was imported without TRITON_INTERPRET=1", allow_module_level=True)

MARKS = [
    pytest.mark.own_device,
    *([pytest.mark.gpu] if DEVICE == "cuda" else []),
    # The interpreter computes with NumPy, which warns where a GPU gives infinity or NaN.
    pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning"),
]

SERVED = [row for row in TABLE if row.name in library.ROWS]
ROWS = pytest.mark.parametrize("row", SERVED, ids=lambda row: row.name)
# One row of each kind of statistics.
KINDS = [get(name) for name in ("evonorm-s0", "evonorm-b0", "frn-tlu", "bn-silu", "gn-silu")]

# What forces each way on a small map. Without these a small map is held by few programs.
SMALL = {"held_forward": 0, "held_backward": 0, "least": 16, "programs": 8}
WAYS = {
    "held": {},
    "read twice": SMALL | {"loop": 64},
    "split": SMALL | {"whole": 0, "tile": 128, "channels": 4, "run": 8},
}
EACH_WAY = pytest.mark.parametrize("way", WAYS)


def force(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Takes the limits of a way."""
    monkeypatch.setattr(plan, "LIMITS", plan.LIMITS._replace(**WAYS[way]))


def groups_of(row, channels: int) -> int:
    return next(g for g in (4, 2, 1) if channels % g == 0 and channels > g) if row.grouped else 1


def on_device(tensors):
    return {name: value.to(DEVICE) for name, value in tensors.items()}


def hold(row, x, dy, p, *, running=None, **options) -> None:
    running = on_device(running) if running else None
    options.setdefault("groups", groups_of(row, x.shape[1]))
    check(row, x.to(DEVICE), dy.to(DEVICE), on_device(p), running=running, backend="triton", **options)


def two_phases_are_backward(name, x, dy, p) -> None:
    """With one replica, whose totals are the sum, the two phases give what one backward gives. x: (2, 6, 5, 3)."""
    x, dy, p = x.to(DEVICE), dy.to(DEVICE), on_device(p)
    stats, batch = x.new_empty(2, 2, 6), x.new_empty(2, 6)
    call = Call(x, p["weight"], p["bias"], p.get("v"), batch, library.ROWS.index(name), 1, 1e-5)
    room.forward(call, False, stats, None)
    together, apart = (Gradients.empty(call, dy, stats, 30.0, apart=twice) for twice in (False, True))
    room.backward(call, together)
    for phase in (REDUCE, APPLY):
        room.backward(call, apart, phase)
    for part in ("dx", "weight", "bias", "extra"):
        ours, theirs = getattr(together, part), getattr(apart, part)
        assert ours is theirs is None or torch.equal(ours, theirs)
