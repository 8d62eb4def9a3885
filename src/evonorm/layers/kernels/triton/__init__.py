"""Fused GPU kernels in Triton: what they serve, and the two calls, with the arguments and results of kernels.library.

Under TRITON_INTERPRET=1, set before Triton is imported, they run on CPU tensors too, slowly, so that anybody can check
them without a GPU. Triton is imported with the first call.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

from evonorm.layers.kernels.rows import ROWS

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Found out at import: a compiler that traces `serves` cannot follow the search for a package.
_INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


def reason(device: torch.device) -> str | None:
    """Why the kernels cannot run on this device; None if they can."""
    if not _INSTALLED:
        return "Triton is not installed; it comes with torch for CUDA"
    if INTERPRETED and device.type in ("cpu", "cuda"):
        return None
    if device.type == "cpu":
        return "x on cpu, where Triton needs TRITON_INTERPRET=1 in the environment before it is imported"
    if device.type != "cuda" or torch.version.hip is not None:
        return f"x on {'rocm' if device.type == 'cuda' else device.type}; the Triton kernels are for CUDA"
    return None


def forward(x: Tensor, channels_last: bool, row: int, groups: int, eps: float, given: bool, *tensors: Any) -> None:
    """Fills y, stats and batch; tensors: weight, bias, extra, stats, batch, y, each or None.

    stats: (N, 2, C), mean and variance in force at each channel of each sample: its group's, where a row has groups.
    """
    from evonorm.layers.kernels.triton import launch

    launch.forward(x, channels_last, ROWS[row], groups, eps, given, *tensors)


def chosen(row: str, x: Tensor, channels_last: bool, groups: int, *, training: bool) -> dict[str, str]:
    """How forward and backward of x would be cut into programs, in words; nothing runs."""
    from evonorm.layers.kernels.triton import launch

    return launch.chosen(row, x, channels_last, groups, training=training)


def backward(
    x: Tensor,
    channels_last: bool,
    row: int,
    groups: int,
    eps: float,
    phases: int,
    batch_count: float,
    *tensors: Any,
) -> None:
    """Fills what is not input: dy, weight, bias, extra, stats, batch, dx, dweight, dbias, dextra, sums, totals."""
    from evonorm.layers.kernels.triton import launch

    launch.backward(x, channels_last, ROWS[row], groups, eps, phases, batch_count, *tensors)
