"""What README and docs say of speed, from the records in results/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import of_gpu

ROOT = Path(__file__).parents[1]
GPU = ROOT / "results" / "layer-times-h200" / "times.json"
CPU = ROOT / "results" / "speed-two-cores"
LAYERS = ("evonorm-s0", "evonorm-b0", "frn-tlu", "bn-relu")


def gpu() -> str:
    """One layer on a GPU, composed of tensor operations."""
    found = json.loads(GPU.read_text(encoding="utf-8"))
    rival = next(row for row in found["rows"] if row["implementation"] == "BatchNorm + ReLU")
    lines = [
        "| layer | ms | times BatchNorm + ReLU's | compiled, ms | times BatchNorm + ReLU's | peak memory; compiled |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        compiled = row.get("compiled_ms")
        slower = f"{compiled / rival['compiled_ms']:.1f}" if compiled else ""
        peak = "; ".join(f"{row[key]:g}" for key in ("peak", "compiled_peak") if key in row)
        cells = [
            row["implementation"],
            f"{row['ms']:g}",
            f"{row['ms'] / rival['ms']:.2g}",
            f"{compiled or ''}",
            slower,
            peak,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    told = ". ".join(f"{text[0].upper()}{text[1:]}" for text in (found["what"], found["conditions"], found["caveat"]))
    return "\n".join([*lines, "", f"{told}."])


def gpu_told() -> str:
    """The README's sentence of it."""
    rows = {row["implementation"]: row for row in json.loads(GPU.read_text(encoding="utf-8"))["rows"]}
    ours, rival = rows["EvoNorm-S0"], rows["BatchNorm + ReLU"]
    eager, compiled = (f"{ours[key] / rival[key]:.1f}" for key in ("ms", "compiled_ms"))
    told = (
        f"composed of tensor operations, one EvoNorm-S0 layer took {eager} times as long as BatchNorm + ReLU on an "
        f"H200, in {ours['peak']:g} times x's memory against {rival['peak']:g}; with both compiled {compiled} times, "
        f"and {ours['compiled_peak']:g} against {rival['compiled_peak']:g} ([the table](docs/speed.md#on-a-gpu))."
    )
    if fused := of_gpu.told():
        return f"{fused} Without the kernels, {told}"
    return (
        f"**On a GPU EvoNorm is slow today**: {told} Kernels in Triton are written (`backend='triton'`), and no GPU "
        "has run them: not measured."
    )


def cpu() -> str:
    """One layer on two cores, beside its rivals."""
    rows = _rows("headline")
    kinds = {"bf16": "bf16 ms", "fp32": "fp32 ms"}
    lines = ["| layer, fused |", "|---|"]
    for kind in kinds.values():
        lines = [
            f"{lines[0]} {kind} | times faster than BatchNorm+ReLU | than timm |",
            f"{lines[1]}---|---|---|",
        ]
    for layer in LAYERS:
        lines.append(f"| `{layer}` | {' | '.join(_three(rows, dtype, f'{layer} kernel') for dtype in kinds)} |")
    for title, name in (("torch BatchNorm+ReLU", "batch_norm+relu"), ("a copy of x", "copy")):
        lines.append(f"| {title} | {' | '.join(_three(rows, dtype, name) for dtype in kinds)} |")
    return "\n".join([*lines, "", _conditions(rows)])


def network() -> str:
    """Mini Inception's whole training step, and one image."""
    rows = _rows("network")
    told = []
    for figure, what in (("training step", "A training step"), ("latency", "One image, not training")):
        found = [row for row in rows if row["figure"] == figure and row["status"] == "measured"]
        ordered = sorted(found, key=lambda row: float(row["median_seconds"]))
        told.append(f"{what}, ms: " + ", ".join(f"{row['implementation']} {_ms(row)}" for row in ordered) + ".")
    return "\n\n".join([*told, _conditions(rows)])


def _rows(name: str) -> list[dict[str, Any]]:
    lines = (CPU / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _three(rows: list[dict[str, Any]], dtype: str, name: str) -> str:
    row = next(
        (r for r in rows if (r["dtype"], r["implementation"], r["figure"]) == (dtype, name, "forward+backward")), None
    )
    if row is None or row["status"] != "measured":
        return "not measured | |"
    ratios = (row["faster_than_batch_norm_relu"], row["faster_than_timm"])
    told = [
        "" if value is None or name == "copy" else f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in ratios
    ]
    return " | ".join([_ms(row), *told])


def _ms(row: dict[str, Any]) -> str:
    ms = 1000 * row["median_seconds"]
    return f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}"


def _conditions(rows: list[dict[str, Any]]) -> str:
    """What all rows of a file have in common, as they say it."""
    about = rows[0]["conditions"]
    return (
        f"Medians of {about['repeats']} rounds, implementations in turn in one process; {about['cores']} cores of an "
        f"{about['processor']} ({about['instructions']}), torch {about['torch']}, timm {about['timm']}, "
        f"{about['groups']} groups."
    )
