"""Under what numbers were measured, as far as records tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evonorm.lab.records.run_files import Record


def conditions(
    records: Sequence[Record],
    *,
    dataset: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    seeds: str = "",
    updated: str = "",
) -> list[tuple[str, str]]:
    """Name and value of each. dataset, budget: as a listing has them, where there is one."""
    about: list[tuple[str, str]] = []
    if dataset:
        images = f"{dataset['train_images']:,} training and {dataset['test_images']:,} validation images"
        classes = f"{len(dataset['classes'])} classes (content {dataset['fingerprint']})"
        about.append(("data", f"{dataset['name']}: {images}, {classes}"))
        about.append(("notice", str(dataset.get("notice") or "")))
    if budget:
        about.append(
            (
                "budget",
                f"{budget['name']}: {budget['epochs']} epoch{'s' * (budget['epochs'] != 1)}; {budget['meaning']}",
            )
        )
        batches = {size for record in records if isinstance(size := record.config.get("batch_size"), int)}
        about.append(("batch size", distinct(sorted(batches))))
        about.append(("seeds", seeds))
    added = {f"{r.config.get('layer')}: y = {r.config['formula']}": None for r in records if r.config.get("formula")}
    about.append(("added layers", distinct(added)))
    for name in ("processor", "instructions", "device", "cores", "threads", "platform"):
        about.append((name, distinct(record.environment.get(name) for record in records)))
    about.append(("precision", distinct(record.config.get("precision") for record in records)))
    versions = {name: distinct(r.environment.get(name) for r in records) for name in ("evonorm", "torch", "python")}
    about.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)))
    about.append(("commit", distinct(r.environment.get("commit") or "not recorded" for r in records)))
    about.append(("compiled", distinct(_compiled(record) for record in records)))
    hours = sum(float(record.summary.get("seconds") or 0) for record in records) / 3600
    about.append(("training time", _duration(hours)))
    about.append(("made", updated))
    return [(name, value) for name, value in about if value]


def distinct(values: Iterable[Any]) -> str:
    """The values that there are, each once, in words."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _duration(hours: float) -> str:
    minutes = f"{hours * 60:.1f}" if hours < 1 / 6 else f"{hours * 60:.0f}"
    return f"{minutes} minutes" if hours < 2 else f"{hours:.1f} hours"


def _compiled(record: Record) -> str:
    """Whether the network was compiled, where the record says it."""
    for place in (record.config, record.environment):
        for name in ("compiled", "compile"):
            if place.get(name) is not None:
                return {True: "yes", False: "no"}.get(place[name], str(place[name]))
    return "not recorded"
