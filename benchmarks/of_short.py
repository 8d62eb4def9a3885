"""What the docs say of experiments whose runs are short, from the records in results/: rates, batches, networks."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from evonorm.lab.analysis import usable_range
from evonorm.lab.analysis.conditions import conditions
from evonorm.lab.analysis.findings import Analysis, Table
from evonorm.lab.analysis.trials import Trials
from evonorm.lab.analysis.usable_range import OPTIMIZER_NAMES
from evonorm.lab.pages import experiment_page, page

RESULTS = Path(__file__).parents[1] / "results"
EXPERIMENTS = ("learning-rate", "batch-size", "architectures")
TOLD = (
    "data",
    "budget",
    "batch size",
    "seeds",
    "processor",
    "cores",
    "precision",
    "versions",
    "commit",
    "training time",
)


def folder_of(name: str) -> Path:
    """Where the records of an experiment lie, if it was run."""
    return RESULTS / f"{name}-two-cores"


def shown(name: str) -> str:
    """All that the experiment's page says: findings, tables, method, conditions; or how to run it."""
    found = _read(name)
    if found is None:
        return f"Not measured: `evonorm reproduce --experiment {name} --budget hour` runs it."
    trials, told = found
    left = f" {trials.missing} planned runs are not among them." if trials.missing else ""
    about = conditions(
        trials.records, dataset=trials.dataset, budget=trials.budget, seeds=", ".join(map(str, trials.seeds))
    )
    count = sum(len(point.values) for points in trials.points.values() for point in points)
    return "\n\n".join(
        [
            f"![{'; '.join(panel.title for panel in told.panels)}: a line a layer]({name}.png)",
            _findings(told),
            *(f"{table.caption}:\n\n{_markdown(table)}" for table in told.tables),
            f"{told.method} {told.caveat}".strip(),
            f"{count} runs.{left} {'; '.join(f'{key}: {value}' for key, value in about if key in TOLD)}.",
        ]
    )


def answers(name: str) -> str:
    """Each finding's question and answer alone."""
    found = _read(name)
    if found is None:
        return f"Not measured: `evonorm reproduce --experiment {name}` runs it."
    return _findings(found[1])


def rates() -> str:
    """The learning rates that a layer can use, a column for each optimizer and kind of pixels."""
    found = _read("learning-rate")
    if found is None:
        return "Not measured: `evonorm reproduce --experiment learning-rate` measures it."
    ladder = found[0]
    panels = usable_range.panels(ladder)
    lines = [
        f"| layer | {' | '.join(f'{OPTIMIZER_NAMES[optimizer]}, {pixels} pixels' for optimizer, pixels in panels)} |",
        f"|---|{'---|' * len(panels)}",
    ]
    for layer in ladder.points:
        cells = [_usable(usable_range.usable(ladder, layer, *place)) for place in panels]
        lines.append(f"| `{layer}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(docs: Path) -> list[Path]:
    """The picture of each experiment that has records, into this folder; the files."""
    made = []
    for name in EXPERIMENTS:
        if _read(name) is not None:
            with tempfile.TemporaryDirectory() as folder:
                (drawn,) = page.draw(folder_of(name), Path(folder))
                made.append(Path(shutil.copy(drawn, docs / f"{name}.png")))
    return made


BLOCKS = tuple((name, partial(shown, name)) for name in EXPERIMENTS)


def _read(name: str) -> tuple[Trials[Any], Analysis] | None:
    if not folder_of(name).is_dir():
        return None
    (listing,) = folder_of(name).glob(experiment_page.LISTINGS)
    experiment, trials = experiment_page.read(listing)
    return trials, experiment.analyse(trials)


def _findings(told: Analysis) -> str:
    return "\n".join(f"- {one.question} **{one.answer}.** {one.text}".rstrip() for one in told.findings)


def _markdown(table: Table) -> str:
    lines = [f"| {' | '.join(table.header)} |", f"|{'---|' * len(table.header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in table.rows)])


def _usable(found: usable_range.Range | None) -> str:
    if found is None:
        return "none"
    low, high = f"{found.low:g}{' or less' * found.open_below}", f"{found.high:g}{' or more' * found.open_above}"
    return low if found.low == found.high else f"{low} to {high}"
