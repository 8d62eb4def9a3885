"""What README and docs say of the report's comparison, from the records in results/."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import of_pixels
from evonorm.lab.analysis import answer, claims
from evonorm.lab.analysis.comparison import Comparison, percent, read, summarize
from evonorm.lab.pages import page
from evonorm.lab.records.report import REPORT_RUNS, Variant

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "results" / "full-budget-h200"
RECORDED = ROOT / "results" / "report-recorded" / "bn-relu.json"
# What a row of the table stands for: its name, and the runs without and with augmentation.
ROWS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], Variant], ...] = (
    ("BatchNorm-ReLU", ("bn-relu-sgd",), ("bn-relu-sgd-aug",), "intended"),
    ("EvoNorm-B0", ("b0",), ("b0-aug",), "intended"),
    (
        "EvoNorm-S0 with 8, 16, 32 groups",
        ("s0-g8", "s0-g16", "s0-g32"),
        ("s0-g8-aug", "s0-g16-aug", "s0-g32-aug"),
        "intended",
    ),
    ("identity, which the report trained in their place", ("b0",), ("b0-aug",), "published"),
)


def short() -> str:
    """The README's: the answer in two sentences, the picture, the table, what to mind."""
    found = read(REPORT)
    plain, augmented, _ = claims.sections(found)[-1].findings
    lines = [
        f"{answer.sentences(found, claims.sections(found))[0]} {plain.answer} With augmentation {augmented.answer}",
        "![Validation accuracy of every layer, with what the report recorded](docs/results.png)",
        "\n".join(_table(found)),
        "Mind: " + " ".join(found.caveats),
        of_pixels.sentence(),
        f"Every number is from [{_place(REPORT)}]({_place(REPORT)}); `evonorm report {_place(REPORT)}` draws "
        "the page, and [docs/results.md](docs/results.md) says more.",
    ]
    return "\n\n".join(lines)


def standing() -> str:
    """How the layers ended against BN-ReLU, with and without augmentation."""
    found = read(REPORT)
    plain, augmented, _ = claims.sections(found)[-1].findings
    where = f"Mini Inception on CIFAR-10, {found.epochs} epochs, batches of 128, SGD, BatchNorm's own learning rate"
    return f"{where}: {plain.answer} With augmentation {augmented.answer} ([results.md](results.md))"


def whole() -> str:
    """All that the page answers, in words."""
    found = read(REPORT)
    return "\n\n".join(answer.sentences(found, claims.sections(found)))


def training() -> str:
    """BN-ReLU beside what the report's notebook printed of it, epoch by epoch."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    found = read(REPORT)
    lines = [
        f"| epoch | {' | '.join(map(str, recorded['epochs']))} |",
        f"|---|{'---|' * len(recorded['epochs'])}",
    ]
    for id, notebook in recorded["runs"].items():
        (run,) = found.cell(id, "intended").records
        here = {epoch["epoch"]: epoch for epoch in run.metrics}
        for key, what in (("train_accuracy", "training"), ("val_accuracy", "validation")):
            told = " | ".join(f"{100 * value:.1f}" for value in notebook[key])
            lines.append(f"| {id}, {what}, recorded | {told} |")
            told = " | ".join(f"{100 * here[epoch][key]:.1f}" for epoch in recorded["epochs"])
            lines.append(f"| {id}, {what}, here | {told} |")
    return "\n".join(lines)


def draw(folder: Path) -> Path:
    """The picture of every layer, as the page has it; returns its file in the folder."""
    page.draw(REPORT, folder)
    return folder / "overview.png"


def _table(found: Comparison) -> list[str]:
    lines = [
        "| validation accuracy, % | recorded by the report | here | recorded, augmented | here, augmented |",
        "|---|---|---|---|---|",
    ]
    for name, plain, augmented, variant in ROWS:
        cells = [told for ids in (plain, augmented) for told in (_recorded(ids, variant), _here(found, ids, variant))]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return lines


def _recorded(ids: tuple[str, ...], variant: Variant) -> str:
    if variant == "published":
        return ""
    runs = {run.id: run for run in REPORT_RUNS}
    return ", ".join("NaN" if value is None else f"{value:.1f}" for id in ids for value in runs[id].recorded)


def _here(found: Comparison, ids: tuple[str, ...], variant: Variant) -> str:
    cells = [found.cell(id, variant) for id in ids]
    ended = [percent(summarize(cell.last())) for cell in cells]
    stopped = [str(record.metrics[-1]["epoch"]) for cell in cells for record in cell.with_status("stopped")]
    lost = sum(len(cell.with_status("diverged")) for cell in cells)
    parts = [", ".join(value for value in ended if value)]
    parts += [f"stopped at epoch {', '.join(stopped)}"] if stopped else []
    parts += [f"diverged {lost} of {sum(len(cell.runs) for cell in cells)}"] if lost else []
    return "; ".join(part for part in parts if part) or "–"


def _place(path: Path) -> Path:
    return path.relative_to(ROOT)
