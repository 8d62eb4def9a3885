"""The page of a folder of runs: the report's comparison, where there is one, and every other run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from evonorm.lab.analysis import answer, claims, evidence, recorded, tables
from evonorm.lab.analysis.comparison import COMPARISONS, Comparison, read
from evonorm.lab.analysis.conditions import conditions
from evonorm.lab.pages import html, overview, pictures
from evonorm.lab.pages.charts import Chart, Curve, curves
from evonorm.lab.pages.grid import Cell, Grid, Row
from evonorm.lab.records import export, listings
from evonorm.lab.records.report import REPORT_RUNS, VARIANTS, Variant
from evonorm.lab.records.run_files import Record
from evonorm.lab.training.tasks import CLASSIFICATION

LISTINGS = COMPARISONS


@dataclass(frozen=True)
class Part:
    """A section of the report as the page shows it."""

    section: claims.Section
    charts: tuple[Chart, ...]
    diverged: tuple[tuple[str, Record], ...]
    failed: tuple[tuple[str, Record], ...]


def render(runs: Path, name: str | None = None, at: Path | None = None) -> str:
    """The page as text. Raises UserError if there is nothing to show, or no comparison of that name."""
    found = read(runs, name)
    sections = claims.sections(found) if found.cells else ()
    return html.fill(
        "comparison.html.j2",
        comparison=found,
        comparable=recorded.is_cifar10(found.dataset),
        answer=answer.sentences(found, sections),
        overview=overview.chart(found),
        nearness=recorded.nearness(found),
        differences=recorded.differences(found),
        stale=evidence.stale_averages(found.cells.values()),
        conditions=conditions(
            found.records or found.others,
            dataset=found.dataset,
            budget=found.budget,
            seeds=tables.seeds(found),
            updated=found.updated,
        ),
        rows=[tables.row(found, run) for run in REPORT_RUNS] if found.cells else [],
        parts=[_part(found, section) for section in sections],
        compared=_grid(found, found.records),
        others=_grid(found, found.others),
        csv=html.as_csv(
            export.of_runs([*found.records, *found.others], listings.stands_for(runs)), "runs.csv", "These runs"
        ),
        other_charts=_charts(_others(found), epochs=found.epochs),
        other_diverged=[(record.name, record) for record in found.others if record.status == "diverged"],
        other_failed=[(record.name, record) for record in found.others if record.status == "failed"],
    )


def _grid(comparison: Comparison, found: Iterable[Record]) -> Grid:
    header = tuple((name, place >= tables.RUN_HEADER.index("epochs")) for place, name in enumerate(tables.RUN_HEADER))
    rows = [Row(run.status, tuple(map(Cell, tables.run(comparison, run)))) for run in found]
    return Grid(header, tuple(rows))


def charts(runs: Path, name: str | None = None) -> dict[str, Chart]:
    """The page's charts by the name of a file. Raises as render does."""
    found = read(runs, name)
    parts = [_part(found, section) for section in claims.sections(found)] if found.cells else []
    first = overview.chart(found)
    named = {"overview": first} if first is not None else {}
    named |= {f"{part.section.anchor} {chart.title}": chart for part in parts for chart in part.charts}
    others = _charts(_others(found), epochs=found.epochs)
    named |= {f"{'others ' if parts else ''}{chart.title}": chart for chart in others}
    return {pictures.file_name(name.lower()): chart for name, chart in named.items()}


def _part(comparison: Comparison, section: claims.Section) -> Part:
    shown: dict[str, Curve] = {}
    for id in section.experiments:
        for variant in VARIANTS:
            for seed, record in comparison.cell(id, variant).runs.items():
                if record is not None and record.name not in shown:
                    shown[record.name] = _curve(comparison, id, variant, seed, record)
    diverged, failed = (
        tuple((curve.name, curve.record) for curve in shown.values() if curve.record.status == status)
        for status in ("diverged", "failed")
    )
    # As in the report: what was trained with augmentation and what without are plotted apart.
    augmented = [curve for curve in shown.values() if curve.record.config.get("augment")]
    plain = [curve for curve in shown.values() if curve not in augmented]
    both = bool(augmented and plain)
    epochs = comparison.epochs
    drawn = _charts(plain, ", without augmentation" * both, epochs=epochs)
    drawn += _charts(augmented, ", with augmentation" * both, epochs=epochs)
    return Part(section, drawn, diverged, failed)


def _curve(comparison: Comparison, id: str, variant: Variant, seed: int, record: Record) -> Curve:
    other = comparison.cell(id, "intended" if variant == "published" else "published").runs.get(seed)
    shared = other is not None and other.name == record.name
    label = id if shared else f"{id} {variant}"
    if record.config.get("layer") == "none":
        label = "identity (published), augmented" if record.config.get("augment") else "identity (published)"
    return Curve(
        label,
        record,
        seed=f"seed {seed}" if len(comparison.seeds) > 1 else "",
        published=variant == "published" and not shared,
    )


def _others(comparison: Comparison) -> list[Curve]:
    """Runs that no entry names, by the names of their folders."""
    return [Curve(record.name, record) for record in comparison.others]


def _charts(shown: Iterable[Curve], suffix: str = "", *, epochs: int) -> tuple[Chart, ...]:
    shown = list(shown)
    return tuple(curves(shown, metric, suffix, epochs=epochs) for metric in CLASSIFICATION.metrics) if shown else ()
