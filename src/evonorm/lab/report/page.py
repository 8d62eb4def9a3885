"""One self-contained HTML page of a folder of runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from evonorm.lab import records
from evonorm.lab.errors import UserError
from evonorm.lab.experiments import EXPERIMENTS, VARIANTS, Variant
from evonorm.lab.records import Record
from evonorm.lab.report import charts, claims, evidence
from evonorm.lab.report.comparison import Cell, Comparison, percent, read, summarize


@dataclass(frozen=True)
class Row:
    """One experiment in the comparison table: what the report recorded, and both variants here."""

    id: str
    what: str
    recorded: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Part:
    """A section of the report as the page shows it."""

    section: claims.Section
    charts: tuple[charts.Chart, ...]
    diverged: tuple[tuple[str, Record], ...]
    failed: tuple[tuple[str, Record], ...]


def write(runs: Path, output: Path, *, comparison: str | None = None) -> None:
    """Writes the page of the runs in `runs` to `output`, at once. comparison: a file's name, if there are several.

    Raises UserError if there are no runs, or the page cannot be written.
    """
    content = render(runs, comparison=comparison)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        records.write_atomically(output, content.encode())
    except OSError as error:
        raise UserError(f"cannot write the page {output}: {error.strerror}; choose another -o") from error


def render(runs: Path, *, comparison: str | None = None) -> str:
    """The page as text; it loads nothing from anywhere."""
    read_comparison = read(runs, comparison)
    loader = jinja2.PackageLoader("evonorm.lab.report", "")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["data"] = _as_data
    template = environment.get_template("template.html.j2")
    return template.render(
        comparison=read_comparison,
        answer=_answer(read_comparison),
        stale=evidence.stale_averages(read_comparison),
        conditions=_conditions(read_comparison),
        rows=[_row(read_comparison, experiment.id) for experiment in EXPERIMENTS] if read_comparison.cells else [],
        parts=[_part(read_comparison, s) for s in claims.sections(read_comparison)] if read_comparison.cells else [],
        others=read_comparison.others,
        other_charts=_charts([charts.Curve(r.name, r) for r in read_comparison.others]),
        plotly=Markup(get_plotlyjs()),
    )


def _as_data(value: Any) -> Markup:
    """JSON that no content can end the script element with."""
    text = json.dumps(value, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _row(comparison: Comparison, id: str) -> Row:
    experiment = next(experiment for experiment in EXPERIMENTS if experiment.id == id)
    what = [experiment.layer, experiment.optimizer.upper() if experiment.optimizer == "sgd" else "Adam"]
    what += [f"{experiment.groups} groups"] if experiment.groups else []
    what += ["augmented"] if experiment.augment else []
    recorded = [f"{value:.1f}" if value is not None else "NaN" for value in experiment.recorded]
    cells = tuple(_cell(comparison, comparison.cell(id, variant)) for variant in VARIANTS)
    return Row(id, ", ".join(what), " and ".join(recorded), cells)


def _cell(comparison: Comparison, cell: Cell) -> tuple[str, str]:
    """The number, and what is to be said of it."""
    if not cell.runs:
        return "", "not asked for"
    remarks = []
    for status in ("diverged", "failed", "stopped", "running"):
        count = len(cell.with_status(status))
        if count:
            remarks.append(f"{status} {count} of {len(cell.runs)}")
    absent = len(cell.runs) - len(cell.records)
    if absent:
        remarks.append(f"not run {absent} of {len(cell.runs)}")
    if cell.same_as is not None:
        id, variant = cell.same_as
        same = f"{variant}" if id == cell.experiment.id else id
        remarks.append(f"same run as {same}")
    best = percent(summarize(cell.best_accuracy()))
    last = percent(summarize(cell.last("val_accuracy")))
    if best and best != last:
        remarks.append(f"best epoch {best}")
    return last, "; ".join(remarks)


def _part(comparison: Comparison, section: claims.Section) -> Part:
    shown: dict[str, charts.Curve] = {}
    for id in section.experiments:
        for variant in VARIANTS:
            for seed, record in comparison.cell(id, variant).runs.items():
                if record is not None and record.name not in shown:
                    label = _label(comparison, id, variant, seed)
                    shown[record.name] = charts.Curve(label, record)
    of = {
        status: [(c.label, c.record) for c in shown.values() if c.record.status == status]
        for status in records.STATUSES
    }
    return Part(section, _charts(shown.values()), tuple(of["diverged"]), tuple(of["failed"]))


def _label(comparison: Comparison, id: str, variant: Variant, seed: int) -> str:
    cell = comparison.cell(id, variant)
    other = comparison.cell(id, "intended" if variant == "published" else "published")
    shared = other.runs.get(seed)
    own = cell.runs[seed]
    both = shared is not None and own is not None and shared.name == own.name
    label = id if both else f"{id} {variant}"
    if variant == "published" and not both and own is not None and own.config.get("layer") == "none":
        label = "identity (published), augmented" if own.config.get("augment") else "identity (published)"
    return f"{label}, seed {seed}" if len(comparison.seeds) > 1 else label


def _charts(shown: Iterable[charts.Curve]) -> tuple[charts.Chart, ...]:
    shown = list(shown)
    return tuple(charts.curves(shown, quantity) for quantity in ("loss", "accuracy")) if shown else ()


def _answer(comparison: Comparison) -> list[str]:
    """The page in a few sentences, worded by rule from the numbers."""
    if not comparison.cells:
        return []
    told = []
    for id, name in (("bn-relu-sgd", "BN-ReLU"), ("b0", "EvoNorm-B0"), ("s0-g8", "EvoNorm-S0 with 8 groups")):
        accuracy = percent(summarize(comparison.cell(id, "intended").last("val_accuracy")))
        if accuracy:
            told.append(f"{name} {accuracy} %")
    identity = percent(summarize(comparison.cell("b0", "published").last("val_accuracy")))
    if identity:
        told.append(f"the identity that the report's code ran in EvoNorm's place {identity} %")
    sentences = []
    if told:
        sentences.append(
            f"Validation accuracy after the last epoch, with SGD and without augmentation: {', '.join(told)}."
        )
    findings = [f for f in claims.sections(comparison)[-1].findings if f.verdict != "not examined"]
    if findings and {finding.verdict for finding in findings} == {"too little budget to tell"}:
        sentences.append("That is too little training to confirm or refute the report, which trained for 60 epochs.")
    else:
        sentences += [f"{finding.claim} These runs: {finding.verdict}." for finding in findings]
    ended = [record for record in comparison.records if record.status in ("finished", "diverged")]
    lost = [record for record in ended if record.status == "diverged"]
    nan = sum(None in experiment.recorded for experiment in EXPERIMENTS)
    if ended:
        identities = sum(record.config.get("layer") == "none" for record in lost)
        which = f"{len(lost)} of the {len(ended)} runs diverged" if lost else f"None of the {len(ended)} runs diverged"
        whose = f", {identities} of them identities" if identities else ""
        sentences.append(f"{which}{whose}; of the report's {len(EXPERIMENTS)} runs, {nan} saw a NaN loss.")
    return sentences


def _conditions(comparison: Comparison) -> list[tuple[str, str]]:
    found = comparison.records or comparison.others
    about: list[tuple[str, str]] = []
    if comparison.dataset:
        data = comparison.dataset
        about.append(
            (
                "data",
                f"{data['name']}: {data['train_images']:,} training and {data['test_images']:,} validation images, "
                f"{len(data['classes'])} classes (content {data['fingerprint']})",
            )
        )
    if comparison.budget:
        budget = comparison.budget
        about.append(("budget", f"{budget['name']}: {budget['epochs']} epochs; {budget['meaning']}"))
        about.append(("seeds", ", ".join(str(seed) for seed in comparison.seeds)))
    for name, key in (("processor", "processor"), ("device", "device"), ("cores", "cores"), ("threads", "threads")):
        about.append((name, _distinct(record.environment.get(key) for record in found)))
    about.append(("precision", _distinct(record.config.get("precision") for record in found)))
    versions = [
        f"{name} {_distinct(r.environment.get(name) for r in found)}" for name in ("evonorm", "torch", "python")
    ]
    about.append(("versions", ", ".join(versions)))
    about.append(("commit", _distinct(record.environment.get("commit") for record in found)))
    hours = sum(float(record.summary.get("seconds") or 0) for record in found) / 3600
    about.append(("training time", f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"))
    if comparison.updated:
        about.append(("made", comparison.updated))
    return [(name, value) for name, value in about if value]


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))
