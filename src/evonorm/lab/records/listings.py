"""Listings: the files beside the runs, one an experiment and budget, that say which run stands for which entry.

<experiment>-<budget>-<fingerprint of the data>.json. An entry holds what the experiment varies, seed and run among it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files

if TYPE_CHECKING:
    from evonorm.lab.data.sets import Dataset


def write(
    path: Path, dataset: Dataset, budget: Any, entries: Iterable[Mapping[str, Any]], experiment: Mapping[str, Any]
) -> Path:
    """Writes, or adds to, the file that says which run stands for which entry of an experiment.

    budget: a dataclass with train_images and test_images. experiment: what tells how to read it (Experiment.described).
    Raises UserError if the file there is none of ours.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = run_files.read_json(path) if path.exists() else {"entries": []}
        listed = {_key(entry): entry for entry in there["entries"]}
    except (OSError, KeyError, TypeError) as error:
        raise UserError(f"cannot use {path}: {error}; choose another --out, or delete the file") from error
    listed |= {_key(entry): entry for entry in entries}
    content = {
        "schema": 1,
        "updated": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "experiment": dict(experiment),
        "budget": asdict(budget),
        "dataset": described(dataset, *budget_images(dataset, budget)),
        **({"caveats": there["caveats"]} if "caveats" in there else {}),
        "entries": list(listed.values()),
    }
    run_files.write_json(path, content)
    return path


def all_in(folder: Path) -> list[Path]:
    """The listings in a folder, by name. Raises UserError naming a file that cannot be read."""
    return [path for path in sorted(folder.glob("*-*-*.json")) if "entries" in run_files.read_json(path)]


def stands_for(folder: Path) -> dict[str, list[str]]:
    """What the listings in a folder say of each run that they name, in the words of `describe`, each once.

    Raises UserError naming a file that cannot be read.
    """
    found: dict[str, dict[str, None]] = {}
    for path in all_in(folder):
        try:
            for entry in run_files.read_json(path).get("entries", ()):
                found.setdefault(entry["run"], {})[describe(path, entry)] = None
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is not a listing that can be read: {error!r}; delete it") from error
    return {run: list(words) for run, words in found.items()}


def describe(listing: Path, entry: Mapping[str, Any]) -> str:
    """The experiment and the entry's values but seed and run: `b0 intended`, `batch-size evonorm-s0 16`.

    The experiment is the entry's own (in the report's comparison) or that of the listing's name.
    """
    named = {"experiment": listing.stem.rsplit("-", 2)[0], **entry}
    return " ".join(str(value) for name, value in named.items() if name not in ("seed", "run"))


def described(dataset: Dataset, train_images: int, test_images: int) -> dict[str, Any]:
    """What records and listings hold of data, of which so many images are used."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "notice": dataset.notice,
        "classes": list(dataset.classes),
        "train_images": train_images,
        "test_images": test_images,
    }


def budget_images(dataset: Dataset, budget: Any) -> tuple[int, int]:
    """Training and test images that the budget leaves of the data."""
    return (
        min(dataset.train_count, budget.train_images or dataset.train_count),
        min(dataset.test_count, budget.test_images or dataset.test_count),
    )


def _key(entry: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in entry.items() if name != "run"}, sort_keys=True)
