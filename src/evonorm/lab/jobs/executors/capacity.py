"""How many trials this machine takes at once, by its cores and its memory."""

from __future__ import annotations

import os
from pathlib import Path

# What one training process of the report's network takes at its largest, at batch 128 and CIFAR-10's size: 2.8 GB in
# bf16 and 3.1 GB in fp32 measured (EvoNorm-S0, one thread, torch 2.14.1).
TRAINING_GB = 3.5


def cores() -> int:
    """The cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def default_workers(gigabytes_each: float | None) -> int:
    """One worker a core, fewer if memory for gigabytes_each (None: unknown, not counted) ends sooner."""
    if gigabytes_each is None:
        return cores()
    free = _free_gigabytes()
    return max(1, cores() if free is None else min(cores(), int(free / gigabytes_each)))


def _free_gigabytes() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable")), None)
