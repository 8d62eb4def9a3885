"""What the synthesis experiment's runs say: distances of samples to images, and what these are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evonorm.lab.analysis.findings import Analysis
from evonorm.lab.analysis.layers import compared, method
from evonorm.lab.analysis.trials import Trials
from evonorm.lab.training.synthesis.options import NOTE


def analysis(trials: Trials[Any]) -> Analysis:
    """Layers compared; each table and chart says that its numbers are no published FID's."""
    found = compared(trials)
    return replace(
        found,
        tables=[replace(table, caption=f"{table.caption} ({NOTE})") for table in found.tables],
        panels=[replace(panel, title=f"{panel.title} ({NOTE})") for panel in found.panels],
        method=method(trials, f"Distances are by {NOTE}."),
    )
