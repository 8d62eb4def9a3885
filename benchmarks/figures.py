"""Writes the figures of README and docs from the records in results/: marked blocks of text, and pictures.

`make figures` runs it; a block stands between <!-- NAME --> and <!-- /NAME -->, and nothing in it is written by hand.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from evonorm.lab.analysis import answer, claims
from evonorm.lab.analysis.comparison import Comparison, percent, read, summarize
from evonorm.lab.pages import page
from evonorm.lab.records.report import REPORT_RUNS, Variant

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "results" / "full-budget-h200"
# What a row of the README's table stands for: its name, and the runs without and with augmentation.
ROWS: tuple[tuple[str, tuple[str, Variant], tuple[str, Variant]], ...] = (
    ("BatchNorm-ReLU", ("bn-relu-sgd", "intended"), ("bn-relu-sgd-aug", "intended")),
    ("EvoNorm-B0", ("b0", "intended"), ("b0-aug", "intended")),
    ("EvoNorm-S0, 8 groups", ("s0-g8", "intended"), ("s0-g8-aug", "intended")),
    ("EvoNorm-S0, 16 groups", ("s0-g16", "intended"), ("s0-g16-aug", "intended")),
    ("EvoNorm-S0, 32 groups", ("s0-g32", "intended"), ("s0-g32-aug", "intended")),
    ("identity, which the report took for EvoNorm", ("b0", "published"), ("b0-aug", "published")),
)


def results() -> str:
    """The report's comparison at its own budget: the answer, the picture, the table, what to mind."""
    found = read(REPORT)
    lines = answer.sentences(found, claims.sections(found))
    lines += ["![Validation accuracy of every layer, with what the report recorded](docs/results.png)"]
    lines += ["\n".join(_table(found))]
    lines += ["Mind: " + " ".join(found.caveats)]
    lines += [
        f"Every number is from [{REPORT.relative_to(ROOT)}]({REPORT.relative_to(ROOT)}); "
        f"`evonorm report {REPORT.relative_to(ROOT)}` draws the page."
    ]
    return "\n\n".join(lines)


def _table(found: Comparison) -> list[str]:
    lines = [
        "| validation accuracy, % | recorded | here | recorded, augmented | here, augmented |",
        "|---|---|---|---|---|",
    ]
    for name, plain, augmented in ROWS:
        cells = [
            cell for id, variant in (plain, augmented) for cell in (_recorded(id, variant), _here(found, id, variant))
        ]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return lines


def _recorded(id: str, variant: Variant) -> str:
    if variant == "published":
        return ""
    run = next(run for run in REPORT_RUNS if run.id == id)
    return " and ".join("NaN" if value is None else f"{value:.1f}" for value in run.recorded)


def _here(found: Comparison, id: str, variant: Variant) -> str:
    cell = found.cell(id, variant)
    parts = [percent(summarize(cell.last()))]
    for record in cell.with_status("stopped"):
        reached = record.metrics[-1]
        parts.append(f"stopped at epoch {reached['epoch']}, at {100 * reached['val_accuracy']:.1f}")
    lost = len(cell.with_status("diverged"))
    parts += [f"diverged {lost} of {len(cell.runs)}"] if lost else []
    return "; ".join(part for part in parts if part) or "–"


# Which block of which file is written by what.
BLOCKS: tuple[tuple[str, str, Callable[[], str]], ...] = (("README.md", "results", results),)


def filled(text: str, name: str, content: str) -> str:
    """The text with this content in its block. Raises ValueError if there is not one such block."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    found, count = pattern.subn(lambda match: f"{match[1]}{content}\n{match[2]}", text)
    if count != 1:
        raise ValueError(f"there are {count} blocks <!-- {name} -->, not one")
    return found


def pictures() -> None:
    """Draws the pictures that blocks show."""
    with tempfile.TemporaryDirectory() as folder:
        page.draw(REPORT, Path(folder))
        shutil.copy(Path(folder) / "overview.png", ROOT / "docs" / "results.png")


def main() -> None:
    """Writes everything."""
    for file, name, of in BLOCKS:
        path = ROOT / file
        path.write_text(filled(path.read_text(encoding="utf-8"), name, of()), encoding="utf-8")
        print(f"{file}: {name}")
    pictures()
    print("docs/results.png")


if __name__ == "__main__":
    main()
