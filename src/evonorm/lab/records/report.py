"""The report's runs: what each trained, and what its notebooks recorded.

Each exists in two variants. `published` is what the report's code really ran: its EvoNorm layers were identities, its
augmented runs took batches of 32 for a quarter of an epoch and validated on a quarter of the test images. `intended` is
what the report describes: the layers as the paper defines them, batches of 128, every image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Variant = Literal["published", "intended"]
VARIANTS: tuple[Variant, ...] = ("published", "intended")


@dataclass(frozen=True)
class ReportRun:
    """One of the report's runs.

    recorded: validation accuracies of the last epoch in its notebooks, in percent; None where the loss was NaN.
    """

    id: str
    layer: str
    optimizer: Literal["sgd", "adam"]
    augment: bool
    recorded: tuple[float | None, ...]
    groups: int | None = None


REPORT_RUNS = (
    ReportRun("bn-relu-adam", "bn-relu", "adam", False, (80.9, 84.0)),
    ReportRun("bn-relu-sgd", "bn-relu", "sgd", False, (84.3,)),
    ReportRun("bn-relu-sgd-aug", "bn-relu", "sgd", True, (82.4,)),
    ReportRun("b0", "evonorm-b0", "sgd", False, (75.7,)),
    ReportRun("b0-aug", "evonorm-b0", "sgd", True, (None,)),
    ReportRun("s0-g8", "evonorm-s0", "sgd", False, (76.0,), groups=8),
    ReportRun("s0-g16", "evonorm-s0", "sgd", False, (74.8,), groups=16),
    ReportRun("s0-g32", "evonorm-s0", "sgd", False, (None,), groups=32),
    ReportRun("s0-g8-aug", "evonorm-s0", "sgd", True, (None,), groups=8),
    ReportRun("s0-g16-aug", "evonorm-s0", "sgd", True, (None,), groups=16),
    ReportRun("s0-g32-aug", "evonorm-s0", "sgd", True, (None,), groups=32),
)
