"""What the report recorded, where it may be set beside these runs, how near they come, and what differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evonorm.lab.analysis import outcomes
from evonorm.lab.analysis.comparison import Comparison, percent, summarize
from evonorm.lab.records.report import REPORT_RUNS, ReportRun

# CIFAR-10's, as its archive names them, in its order.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE = "cifar10"
# The report's two runs of one configuration, BN-ReLU with Adam, ended so many points apart.
ADAM_APART = 3.1


@dataclass(frozen=True)
class Nearness:
    """An experiment here against its recorded value: its id, both in words, and the difference in points."""

    experiment: str
    recorded: str
    here: str
    points: str


def is_cifar10(dataset: dict[str, Any]) -> bool:
    """Whether recorded numbers may stand beside these: the archive, or images of its ten classes and no notice."""
    classes = tuple(str(name).lower() for name in dataset.get("classes", ()))
    known = dataset.get("name") == ARCHIVE or sorted(classes) == sorted(CLASSES)
    return known and not dataset.get("notice")


def in_words(experiment: ReportRun) -> str:
    """As "80.9 and 84.0", or "NaN"."""
    return " and ".join("NaN" if value is None else f"{value:.1f}" for value in experiment.recorded)


def nearness(comparison: Comparison) -> list[Nearness]:
    """What the report's code ran, here, in the report's order, where a run of it ended; none on other data."""
    if not is_cifar10(comparison.dataset):
        return []
    found = []
    for experiment in REPORT_RUNS:
        cell = comparison.cell(experiment.id, "published")
        if not cell.runs and experiment.layer == "bn-relu" and not experiment.augment:
            cell = comparison.cell(experiment.id, "intended")  # one and the same configuration
        here, lost = summarize(cell.last()), len(cell.with_status("diverged"))
        told = [percent(here)] if here else []
        told += [f"{lost} of {len(cell.runs)} diverged"] if lost else []
        numbers = [value for value in experiment.recorded if value is not None]
        apart = [f"{100 * here.mean - value:+.1f}".replace("-", "−") for value in numbers] if here else []
        if told:
            found.append(Nearness(experiment.id, in_words(experiment), ", ".join(told), " and ".join(apart) or "–"))
    return found


def differences(comparison: Comparison) -> list[str]:
    """What is known to differ between the report's runs and these, as far as the records prove it."""
    runs, data = comparison.records, comparison.dataset
    torch = sorted({str(r.environment.get("torch")) for r in runs if r.environment.get("torch")})
    precision = sorted({str(r.config.get("precision")) for r in runs if r.config.get("precision")})
    epochs = sorted({outcomes.planned_epochs(record) for record in runs})
    told = []
    if data.get("name") != ARCHIVE:
        told.append(
            f"the images come from {data.get('name')}, not from CIFAR-10's own archive; copies such as JPEG files lose "
            "detail, and the record does not say in what form these are"
        )
    told.append(f"another framework: TensorFlow there, torch {' and '.join(torch) or '(version not recorded)'} here")
    if precision and precision != ["fp32"]:
        told.append(f"precision {' and '.join(precision)} here")
    if epochs and epochs != [60]:
        told.append(f"{' and '.join(map(str, epochs))} epochs here, 60 there")
    if data.get("train_images") != 50_000 or data.get("test_images") != 10_000:
        told.append(f"{data.get('train_images'):,} training and {data.get('test_images'):,} validation images here")
    seeds = len(comparison.seeds)
    counted = "one seed" if seeds == 1 else f"{seeds} seeds"
    told.append(
        f"{counted} here and, but for BN-ReLU with Adam, one run there, whose two ended {ADAM_APART} points apart"
    )
    return told
