"""What the docs say of detection and synthesis, from the records in results/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evonorm.lab.analysis import outcomes
from evonorm.lab.records import run_files
from evonorm.lab.records.run_files import Record

RESULTS = Path(__file__).parents[1] / "results"
PRECISIONS = ("val_box_ap", "val_box_ap50", "val_mask_ap", "val_mask_ap50")


def detection() -> str:
    """The long run, and each run of the quick budget that ended."""
    lines = ["| run | pictures seen | box AP | box AP50 | mask AP | mask AP50 |", "|---|---|---|---|---|---|"]
    (alone,) = run_files.read_all(RESULTS / "detection-s0").records
    lines.append(_precisions("the first command above: EvoNorm-S0, batch 2", alone))
    for entry, record in _entries("detection-quick"):
        told = f"`quick`: {entry['layer']}, batch {entry['batch_size']}, seed {entry['seed']}"
        lines.append(_precisions(told, record))
    return "\n".join(lines)


def synthesis() -> str:
    """Distance and score of each layer after the quick budget, a value a seed."""
    found: dict[str, list[Record]] = {}
    for entry, record in _entries("synthesis-quick"):
        found.setdefault(entry["layer"], []).append(record)
    lines = ["| layer | distance | score |", "|---|---|---|"]
    for layer, records in found.items():
        last = [record.metrics[-1] for record in records]
        distances, scores = (", ".join(f"{epoch[key]:.{n}f}" for epoch in last) for key, n in _SYNTHESIS)
        lines.append(f"| {layer} | {distances} | {scores} |")
    return "\n".join(lines)


_SYNTHESIS = (("val_distance", 1), ("val_score", 2))


def _entries(folder: str) -> list[tuple[dict[str, Any], Record]]:
    """The folder's listing with the records that are there, in its order."""
    records = {record.name: record for record in run_files.read_all(RESULTS / folder).records}
    (listing,) = (RESULTS / folder).glob("*.json")
    entries = json.loads(listing.read_text(encoding="utf-8"))["entries"]
    return [(entry, records[entry["run"]]) for entry in entries if entry["run"] in records]


def _precisions(told: str, record: Record) -> str:
    seen = outcomes.steps_per_epoch(record) * int(record.config["batch_size"]) * len(record.metrics)
    values = " | ".join(f"{100 * record.metrics[-1][key]:.1f}" for key in PRECISIONS)
    return f"| {told} | {seen:,} | {values} |"
