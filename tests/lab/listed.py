"""A listing of made-up runs, for the pages of experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evonorm.lab.records import run_files


def write(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Ten classes, so that a guess has an accuracy of 10 %."""
    dataset = {"name": "pictures", "fingerprint": "0123456789abcdef", "notice": None, "classes": list("abcdefghij")}
    run_files.write_json(
        path,
        {
            "schema": 1,
            "updated": "2026-01-01T00:00:00Z",
            "budget": {"name": "hour", "epochs": 1, "meaning": "a test"},
            "dataset": {**dataset, "train_images": 1000, "test_images": 1000},
            "entries": entries,
        },
    )
