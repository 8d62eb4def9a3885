"""The GPUs of this machine that torch can use, and what is free of their memory."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

_ASK = ("nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits")
_ASK_SECONDS = 20.0


@dataclass(frozen=True)
class Gpu:
    """name: what CUDA_VISIBLE_DEVICES calls it, whatever else is visible."""

    name: str
    free_gigabytes: float


def gpus() -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order; none where nvidia-smi or torch sees none."""
    try:
        told = subprocess.run(_ASK, capture_output=True, text=True, check=True, timeout=_ASK_SECONDS).stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in told.splitlines() if line.strip()]
        there = {index: Gpu(name, float(free) / 1024) for index, name, free in rows}
    except (OSError, subprocess.SubprocessError, ValueError):  # ValueError: it says "[N/A]", or something else
        return []
    import torch

    if not (there and torch.cuda.is_available()):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(there.values())
    by_name = there | {gpu.name: gpu for gpu in there.values()}
    return [by_name[name.strip()] for name in visible.split(",") if name.strip() in by_name]
