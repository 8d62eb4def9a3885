"""What a profiler sees of a training step: its stages by name. Without a profiler a mark costs a few microseconds."""

from __future__ import annotations

from torch.profiler import record_function

STEP = "evonorm step"
STAGE = "evonorm stage: "


def stage(name: str) -> record_function:
    """Marks what runs inside as "data", "augmentation", "forward", "backward", "gradient check" or "optimizer"."""
    return record_function(STAGE + name)
