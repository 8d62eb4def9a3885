"""The page of the learning-rate experiment."""

from __future__ import annotations

from pathlib import Path

from evonorm.lab.analysis import ladder, ladder_findings, tables
from evonorm.lab.analysis.comparison import Comparison
from evonorm.lab.analysis.ladder import charts, read
from evonorm.lab.pages import html, lines
from evonorm.lab.records import export, listings

LISTINGS = ladder.LISTINGS


def render(folder: Path, name: str | None = None, at: Path | None = None) -> str:
    """The page as text. name: of the experiment's file, if there are several. Raises UserError if it has no runs."""
    found = read(folder, name)
    conditions = tables.conditions(Comparison(dict(found.budget), dict(found.dataset), {}, list(found.records)))
    conditions = [(name, ", ".join(map(str, found.seeds)) if name == "seeds" else value) for name, value in conditions]
    batches = sorted({int(record.config["batch_size"]) for record in found.records})
    conditions.insert(2, ("batch size", ", ".join(map(str, batches))))
    return html.fill(
        "ladder.html.j2",
        ladder=found,
        lead=ladder_findings.lead(found),
        findings=ladder_findings.findings(found),
        method=ladder_findings.method(found),
        best_header=ladder_findings.BEST_HEADER,
        best_rows=ladder_findings.best_rows(found),
        range_header=ladder_findings.RANGE_HEADER,
        range_rows=ladder_findings.range_rows(found),
        charts=[lines.chart(found, panel) for panel in charts(found)],
        csv=html.as_csv(export.of_runs(found.records, listings.stands_for(folder)), "runs.csv", "These runs"),
        conditions=conditions,
        diverged=[record for record in found.records if record.status == "diverged"],
    )


def picture(folder: Path, path: Path, name: str | None = None) -> None:
    """Writes the charts as one picture, in the format that the path's suffix names."""
    found = read(folder, name)
    lines.picture(found, charts(found), path)


def draw(folder: Path, out: Path, name: str | None = None, kind: str = "png") -> list[Path]:
    """Writes the charts as one picture into the folder `out`, and returns its path. Raises as render does."""
    path = out / f"learning-rate.{kind}"
    picture(folder, path, name)
    return [path]
