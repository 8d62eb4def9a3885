"""What README and docs say of the pictures: BN-ReLU's first epochs on the official pixels and on JPEG copies."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

from evonorm.lab.analysis.comparison import read
from evonorm.lab.records import run_files

RESULTS = Path(__file__).parents[1] / "results"
ON_GPU, HERE = RESULTS / "full-budget-h200", RESULTS / "pixels-two-cores"
RECORDED = RESULTS / "report-recorded" / "bn-relu.json"
TITLES = {"adam": "Adam", "sgd": "SGD"}
OFFICIAL, AGAIN = "cifar10-official.zip", "again.zip"
# Rows of the table.
REPORTS, PIXELS = "recorded by the report", "two cores, official pixels"
COPIES, COPIES_HERE = "NVIDIA H200, compiled, JPEG copies of them", "two cores, JPEG copies of them"
TWICE = "two cores, the copies coded as JPEG once more"
METRICS = {"training": "train_accuracy", "validation": "val_accuracy"}


class Curve(NamedTuple):
    """In percent, by epoch."""

    training: list[float]
    validation: list[float]


def table() -> str:
    """Training and validation accuracy of the epochs that ran on the official pixels, and what they make up for."""
    found = {optimizer: _curves(optimizer) for optimizer in TITLES}
    columns = [
        (optimizer, epoch) for optimizer, curves in found.items() for epoch in range(len(curves[PIXELS].training))
    ]
    header = " | ".join(f"{TITLES[one]}, {epoch + 1}" for one, epoch in columns)
    lines = [
        f"| BN-ReLU, accuracy, %, after epoch | {header} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for kind in METRICS:
        for name in (REPORTS, PIXELS, COPIES_HERE, COPIES, TWICE):
            values = {one: getattr(curves[name], kind) if name in curves else [] for one, curves in found.items()}
            cells = [f"{values[one][epoch]:.1f}" if epoch < len(values[one]) else "" for one, epoch in columns]
            lines.append(f"| {kind}, {name} | {' | '.join(cells)} |")
    told = [
        f"with {TITLES[one]} {curves[REPORTS].training[last]:.1f} by the report, {curves[PIXELS].training[last]:.1f} "
        f"on the official pixels and {curves[COPIES].training[last]:.1f} on the copies"
        for one, curves in found.items()
        for last in [len(curves[PIXELS].training) - 1]
    ]
    return "\n".join([*lines, "", f"Training accuracy after the last of these epochs: {'; '.join(told)}."])


def sentence() -> str:
    """The README's."""
    found = [_curves(optimizer) for optimizer in TITLES]
    epochs = min(len(curves[PIXELS].training) for curves in found)

    def off(name: str) -> float:
        return max(
            abs(curves[name].training[epoch] - curves[REPORTS].training[epoch])
            for curves in found
            for epoch in range(epochs)
        )

    within = math.ceil(10 * off(PIXELS)) / 10
    return (
        "Why BatchNorm-ReLU ends below what the report recorded: from the first epoch on its training accuracy lags, "
        f"and there the pictures are why. In the first {epochs} epochs it is up to {off(COPIES):.1f} points off the "
        f"report's on the copies, and within {within:.1f} on CIFAR-10's official pixels "
        "([the table](docs/results.md#why-batchnorm-relu-ends-lower-here)). Where each layer ends on those is not "
        "measured."
    )


def _curves(optimizer: str) -> dict[str, Curve]:
    """By row of the table."""
    notebook = json.loads(RECORDED.read_text(encoding="utf-8"))["runs"][f"bn-relu-{optimizer}"]
    (gpu,) = read(ON_GPU).cell(f"bn-relu-{optimizer}", "intended").records
    assert gpu.environment["device"] in COPIES, gpu.environment
    own = {run.dataset["name"]: run for run in run_files.read_all(HERE).records if run.config["optimizer"] == optimizer}
    rows = {OFFICIAL: PIXELS, gpu.dataset["name"]: COPIES_HERE, AGAIN: TWICE}
    curves = {rows[name]: _curve(run) for name, run in own.items()}
    recorded = Curve(*([100 * value for value in notebook[key]] for key in METRICS.values()))
    return {REPORTS: recorded, COPIES: _curve(gpu), **curves}


def _curve(run: run_files.Record) -> Curve:
    return Curve(*([100 * epoch[key] for epoch in run.metrics] for key in METRICS.values()))
