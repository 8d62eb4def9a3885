"""What README and docs say of the fused kernels on a GPU, from what `make gpu` wrote: results/gpu/CARD.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evonorm.lab.analysis.conditions import distinct

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "gpu"
LARGE, SMALL = [256, 256, 56, 56], [128, 96, 32, 32]
FUSED = "kernel"
NOT_YET = (
    "Not measured: no GPU has run Triton's kernels. `make gpu OUT=results/gpu/CARD.json`, then `make figures`, puts "
    "the tables here."
)
Steps = dict[str, dict[str, Any]]


def tables(folder: Path = FOLDER) -> str:
    """Of each card: what its tests said, layers, whole runs."""
    return "\n\n".join(part for steps in _found(folder) for part in _of_card(steps)) or NOT_YET


def told(folder: Path = FOLDER) -> str | None:
    """One sentence for each card that has run the fused S0 at the large shape; None where there is none."""
    sentences = []
    for steps in _found(folder):
        row = _fused(_layers(steps, LARGE), "evonorm-s0")
        if row is None:
            continue
        over = [
            f"{_digits(row[key])} times as fast as {name}"
            for key, name in (("faster_than_batch_norm_relu", "BatchNorm + ReLU"), ("faster_than_timm", "timm's"))
            if row[key] is not None
        ]
        sentences.append(
            f'On {_card(steps)}, EvoNorm-S0 fused (`backend="triton"`) trains {" and ".join(over)} '
            f"({_shape(LARGE)}, {row['dtype']})."
        )
    return " ".join(sentences) or None


def _found(folder: Path) -> list[Steps]:
    return [json.loads(path.read_text(encoding="utf-8"))["steps"] for path in sorted(folder.glob("*.json"))]


def _of_card(steps: Steps) -> list[str]:
    about = [step["conditions"] for step in steps.values()]  # a file may be filled by several calls
    versions = ", ".join(
        f"{title} {distinct(one[key] for one in about)}"
        for title, key in (("torch", "torch"), ("Triton", "triton"), ("CUDA", "cuda"), ("commit", "commit"))
    )
    lines = [f"**{_card(steps)}**, {versions}. {_tests(steps)}"]
    for shape in (LARGE, SMALL):
        rows = _layers(steps, shape)
        lines += [f"{_shape(shape)}, forward + backward, {rows[0]['dtype']}:", _table(rows)] if rows else []
    return [*lines, *_runs(steps)]


def _card(steps: Steps) -> str:
    return f"one {distinct(step['conditions']['device'] for step in steps.values())}"


def _tests(steps: Steps) -> str:
    """Every test step that is in the file, whatever it said."""
    counts = [
        f"{name}: {step['passed']} passed, {step['failed']} failed, {step['skipped']} skipped"
        + ("" if step["status"] == "finished" or step["failed"] else f" ({step['status']})")
        for name, step in steps.items()
        if "passed" in step
    ]
    return f"Tests on it: {'; '.join(counts)}." if counts else "No test has run on it."


def _layers(steps: Steps, shape: list[int]) -> list[dict[str, Any]]:
    """The rows of the benches at this shape, a row an implementation: the first bench that has it, in file order."""
    found: dict[str, dict[str, Any]] = {}
    for name, step in steps.items():
        for row in step.get("rows", ()) if name.startswith("bench/") else ():
            if row["shape"] == shape and row["figure"] == "forward+backward" and row["format"] == "channels_last":
                found.setdefault(row["implementation"], row)
    return list(found.values())


def _fused(rows: Iterable[dict[str, Any]], layer: str) -> dict[str, Any] | None:
    return next(
        (r for r in rows if (r["layer"], r["variant"], r["status"]) == (layer, FUSED, "measured")),
        None,
    )


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| implementation | ms | over the memory floor | times faster than BatchNorm + ReLU | than timm | host, ms "
        "| peak memory, in sizes of x |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["median_seconds"] or float("inf")):
        if row["status"] != "measured":
            lines.append(f"| {row['implementation']} | {row['status']}: {row['reason']} | | | | | |")
            continue
        copies = row["implementation"] == "copy"
        cells = [
            row["implementation"],
            _digits(1000 * row["median_seconds"]),
            *("" if copies else _digits(row[key]) for key in ("over_floor", "faster_than_batch_norm_relu")),
            "" if copies else _digits(row["faster_than_timm"]),
            _digits(None if row["median_host_seconds"] is None else 1000 * row["median_host_seconds"]),
            _digits(row["peak_over_x"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _runs(steps: Steps) -> list[str]:
    """Whole runs of the report's network."""
    rows = steps.get("train/speed", {}).get("rows", [])
    if not rows:
        return []
    lines = ["| layer | kernels | step | augmented | images a second |", "|---|---|---|---|---|"]
    for row in rows:
        speed = row["trouble"] or ("not run" if row["median"] is None else f"{row['median']:,.0f}")
        kernels = "Triton" if row["backend"] == "triton" else "torch's operations"
        step = "a CUDA graph" if row["captured"] else "eager"
        lines.append(f"| `{row['layer']}` | {kernels} | {step} | {'yes' if row['augmented'] else 'no'} | {speed} |")
    return [f"`evonorm train`, Mini Inception, batches of {rows[0]['batch_size']}:", "\n".join(lines)]


def _shape(shape: list[int]) -> str:
    return f"({', '.join(map(str, shape))})"


def _digits(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
