"""Triton's kernels against the float64 reference: every row, dtype, memory format and way through them.

Without a GPU they run in Triton's interpreter, on CPU tensors; with one, on it (marker `gpu`). Each way is forced on
small shapes by lower limits: what a program holds, what it reads twice, what several programs meet for.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evonorm import NormActivation, norm_act
from evonorm.layers import kernels, reference
from evonorm.layers.kernels import library
from evonorm.layers.table import TABLE, Setting, get
from tests.layers.yardstick import case, check, laid, noise, parameters, results, trains

if importlib.util.find_spec("triton") is None:
    if os.environ.get("CI"):
        raise RuntimeError("CI must test Triton's kernels: install triton")
    pytest.skip("Triton is not installed", allow_module_level=True)

from evonorm.layers.kernels.triton import INTERPRETED, plan

DEVICE = "cpu" if INTERPRETED else "cuda"
if DEVICE == "cuda" and not torch.cuda.is_available():
    pytest.skip("no CUDA device, and Triton was imported without TRITON_INTERPRET=1", allow_module_level=True)

pytestmark = [
    *([pytest.mark.gpu] if DEVICE == "cuda" else []),
    # The interpreter computes with NumPy, which warns where a GPU gives infinity or NaN.
    pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning"),
]

SERVED = [row for row in TABLE if row.name in library.ROWS]
BATCHED = [row for row in SERVED if row.running]
ROWS = pytest.mark.parametrize("row", SERVED, ids=lambda row: row.name)
# One row of each kind of statistics.
KINDS = [get(name) for name in ("evonorm-s0", "evonorm-b0", "frn-tlu", "bn-silu", "gn-silu")]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ORDERS = pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])

SMALL = {"tile": 32, "loop": 32, "channels": 4, "chunks": 4}
WAYS = {
    "held": {},
    "read twice": SMALL | {"held_forward": 0, "held_backward": 0, "channels": 64},
    "split": SMALL | {"held_forward": 0, "held_backward": 0, "whole": 0},
}
EACH_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
# For each way, shapes that are hard for it.
SHAPES = {
    "held": [(2, 21, 5, 3), (3, 6, 1, 1), (1, 12, 9), (2, 4, 2, 3, 2)],
    "read twice": [(2, 15, 7, 5), (1, 6, 2, 3, 7)],
    "split": [(2, 15, 9, 8), (1, 9, 70)],
}


@pytest.fixture
def limits(monkeypatch):
    return lambda way: monkeypatch.setattr(plan, "LIMITS", plan.LIMITS._replace(**way))


def groups_of(row, channels: int) -> int:
    """Groups of three channels or more where they can be."""
    return next(g for g in (5, 4, 3, 2, 1) if channels % g == 0 and channels > g) if row.grouped else 1


def on_device(tensors):
    return {name: value.to(DEVICE) for name, value in tensors.items()}


def hold(row, x, dy, p, **options) -> None:
    running = options.pop("running", None)
    check(
        row,
        x.to(DEVICE),
        dy.to(DEVICE),
        on_device(p),
        running=running and on_device(running),
        backend="triton",
        **options,
    )


@ROWS
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@ORDERS
@pytest.mark.parametrize("way", WAYS)
def test_against_float64(row, dtype, channels_last, way, limits, nan_filled_memory) -> None:
    limits(WAYS[way])
    shapes = [shape for shape in SHAPES[way] if trains(row, shape)]
    for shape in shapes if dtype is torch.float32 else shapes[:1]:
        hold(*case(row, shape, dtype, channels_last), groups=groups_of(row, shape[1]))
