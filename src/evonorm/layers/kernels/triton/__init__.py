"""Fused GPU kernels in Triton: what they serve, and the two calls.

Under TRITON_INTERPRET=1, set before Triton is imported, they run on CPU tensors too, slowly, so that anybody can check
them without a GPU. Triton is imported with the first call.
"""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from evonorm.layers.kernels.call import APPLY, REDUCE, Call, Gradients

# Of a sample, which the kernels count in 32 bits, beyond the last one too; where they lie is told in 64.
POSITIONS = 2**30
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


def forward(call: Call, given: bool, stats: Tensor | None, y: Tensor | None) -> None:
    """As Kernels has it. stats: (N, 2, C), mean and variance in force at each channel, which may be its group's."""
    from evonorm.layers.kernels.triton import launch

    launch.forward(call, given, stats, y)


def backward(call: Call, gradients: Gradients, phases: int = REDUCE | APPLY) -> None:
    """As Kernels has it."""
    from evonorm.layers.kernels.triton import launch

    launch.backward(call, gradients, phases)


def chosen(row: str, x: Tensor, channels_last: bool, groups: int, *, training: bool) -> dict[str, str]:
    """How forward and backward of x would be cut into programs, in words; nothing runs."""
    from evonorm.layers.kernels.triton import launch

    return launch.chosen(row, x, channels_last, groups, training=training)
