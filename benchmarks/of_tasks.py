"""What the docs say of detection and synthesis, from the records in results/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evonorm.lab.analysis import outcomes
from evonorm.lab.errors import UserError
from evonorm.lab.pages import experiment_page
from evonorm.lab.records import run_files
from evonorm.lab.records.run_files import Record

RESULTS = Path(__file__).parents[1] / "results"
PRECISIONS = ("val_box_ap", "val_box_ap50", "val_mask_ap", "val_mask_ap50")
# Of the synthesis experiment: those that have run here.
BUDGETS = ("quick", "hour")


def detection() -> str:
    """The long run, each place of the quick budget with a value a seed, and what their page answers."""
    lines = ["| run | pictures seen | box AP | box AP50 | mask AP | mask AP50 |", "|---|---|---|---|---|---|"]
    (alone,) = run_files.read_all(RESULTS / "detection-s0").records
    lines.append(_precisions("the first command above: EvoNorm-S0, batch 2", [alone]))
    for (layer, size), records in _by(RESULTS / "detection-quick", "layer", "batch_size").items():
        lines.append(_precisions(f"`quick`: {layer}, batch {size}", records))
    return "\n".join([*lines, "", _answer(RESULTS / "detection-quick")])


def synthesis() -> str:
    """Of each budget that was run: what it was, distance and score of each layer, and what their page answers."""
    return "\n\n".join(_of_budget(name) for name in BUDGETS)


def _of_budget(name: str) -> str:
    folder = RESULTS / f"synthesis-{name}"
    if not folder.is_dir():
        return f"`{name}`: not run."
    runs = _by(folder, "layer")
    record = next(one for records in runs.values() for one in records)
    judge = json.loads((folder / record.name / "judge.json").read_text(encoding="utf-8"))
    config, data = record.config, record.dataset
    steps = int(config["epochs"]) * outcomes.steps_per_epoch(record)
    lines = [
        f"`{name}`: {data['train_images']:,} pictures, {data['test_images']:,} for validation; "
        f"width {config['options']['width']}, {steps:,} steps of the discriminator, {config['precision']}; "
        f"the judge right on {100 * judge['accuracy']:.1f} %. After the last epoch, a value a seed; "
        f"training images have a distance of {judge['distance_of_training_images']:.2f}:",
        "",
        "| layer | distance | score |",
        "|---|---|---|",
        *(
            f"| {layer} | {_values(records, 'val_distance', 1)} | {_values(records, 'val_score', 2)} |"
            for (layer,), records in runs.items()
        ),
    ]
    return "\n".join([*lines, "", _answer(folder)])


def _by(folder: Path, *names: str) -> dict[tuple[Any, ...], list[Record]]:
    """The folder's runs that have ended, in the order of its listing, by these values of its entries."""
    records = {record.name: record for record in run_files.read_all(folder).records}
    found: dict[tuple[Any, ...], list[Record]] = {}
    for entry in json.loads(_listing(folder).read_text(encoding="utf-8"))["entries"]:
        record = records.get(entry["run"])
        if record is not None and record.status in ("finished", "diverged"):
            found.setdefault(tuple(entry[name] for name in names), []).append(record)
    return found


def _answer(folder: Path) -> str:
    """What the experiment's page says first, and of how many runs."""
    try:
        experiment, found = experiment_page.read(_listing(folder))
    except UserError:
        return "No seed has ended for every layer: nothing is compared."
    count = sum(len(point.values) for points in found.points.values() for point in points)
    left = f"; {found.missing} planned runs are not among them" if found.missing else ""
    return f"What their page answers, by rule, of {count} runs{left}: *{experiment.analyse(found).lead}*"


def _listing(folder: Path) -> Path:
    (listing,) = folder.glob("*.json")
    return listing


def _precisions(told: str, records: list[Record]) -> str:
    one = records[0]
    seen = outcomes.steps_per_epoch(one) * int(one.config["batch_size"]) * int(one.config["epochs"])
    return f"| {told} | {seen:,} | {' | '.join(_values(records, key, 1, scale=100) for key in PRECISIONS)} |"


def _values(records: list[Record], key: str, digits: int, *, scale: float = 1.0) -> str:
    """A value a run, of its last epoch; or how the run ended."""
    return ", ".join(
        f"{scale * one.metrics[-1][key]:.{digits}f}" if one.status == "finished" else one.status for one in records
    )
