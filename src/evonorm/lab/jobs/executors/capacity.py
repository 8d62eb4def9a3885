"""How many trials this machine takes at once, by its cores, its memory and its GPUs' memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from evonorm.lab.jobs.executors.gpus import Gpu

# What one training process of the report's network takes at its largest, at batch 128 and CIFAR-10's size: 2.8 GB in
# bf16 and 3.1 GB in fp32 measured (EvoNorm-S0, one thread, torch 2.14.1).
TRAINING_GB = 3.5
# The same of a GPU's memory, CUDA's own part included: a guess, no GPU has been asked.
TRAINING_GPU_GB = 4.0


def cores() -> int:
    """The cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def default_workers(gigabytes_each: float | None, gpus: Sequence[Gpu] = ()) -> int:
    """One worker a core, fewer if memory for gigabytes_each (None: unknown, not counted), or that of gpus, ends sooner.

    How busy one run keeps a GPU is not asked.
    """
    if gigabytes_each is None:
        return cores()
    free = _free_gigabytes()
    most = [cores()]
    if free is not None:
        most.append(int(free / gigabytes_each))
    if gpus:
        most.append(sum(int(gpu.free_gigabytes / TRAINING_GPU_GB) for gpu in gpus))
    return max(1, min(most))


def _free_gigabytes() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable")), None)
