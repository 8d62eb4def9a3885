"""Runs as plain files: a folder each, readable without torch.

config.json        the resolved configuration and the data it ran on
metrics.jsonl      one line an epoch
summary.json       status, best and last metrics, diagnosis
environment.json   versions, processor, threads, commit
checkpoint.pt      written by the training loop; not read here
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evonorm.lab.errors import UserError

STATUSES = ("running", "finished", "diverged", "stopped", "failed")


@dataclass(frozen=True)
class Record:
    """One run as its folder tells it.

    metrics: a dict an epoch with epoch (from 1), train_loss, train_accuracy, val_loss, val_accuracy (fractions;
    None where the number was not finite), learning_rate, images_per_second, seconds.
    summary: status (one of STATUSES), epochs_done, best, last, diagnosis, error.
    """

    name: str
    config: dict[str, Any]
    dataset: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """One of STATUSES; `running` also where the process died without a word."""
        return str(self.summary.get("status", "running"))


def read(folder: Path) -> Record:
    """The record in `folder`. Raises UserError naming the file that cannot be read."""
    config = _read_json(folder / "config.json")
    return Record(
        name=folder.name,
        config=config.get("config", {}),
        dataset=config.get("dataset", {}),
        metrics=list(read_metrics(folder)),
        summary=_read_json(folder / "summary.json", missing={}),
        environment=_read_json(folder / "environment.json", missing={}),
    )


def read_all(folder: Path) -> list[Record]:
    """Every run below `folder`, by name."""
    return [read(path.parent) for path in sorted(folder.glob("*/config.json"))]


def read_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """The epochs in metrics.jsonl, in order; a last line torn by a crash is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def append_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Adds one epoch, on the disk before this returns."""
    path = folder / "metrics.jsonl"
    with _named(path), path.open("a", encoding="utf-8") as file:
        file.write(dumps(metrics) + "\n")
        file.flush()
        os.fsync(file.fileno())


def rewrite_metrics(folder: Path, epochs: Iterable[Mapping[str, Any]]) -> None:
    """Replaces metrics.jsonl by these epochs, at once."""
    write_atomically(folder / "metrics.jsonl", "".join(dumps(epoch) + "\n" for epoch in epochs).encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file at once: a reader sees the old one or the new one, never half of it."""
    write_atomically(path, (dumps(content, indent=2) + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Writes `content` beside `path`, forces it to the disk, and puts it in place; nothing stays of what fails."""
    beside = path.with_name(path.name + ".part")
    try:
        with _named(path), beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Gives the error of a write the file's name, which it has not itself."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises UserError naming the file if it is missing or broken."""
    return _read_json(path)


def _read_json(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    if missing is not None and not path.exists():
        return missing
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}; delete the run's folder to run it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def dumps(content: Any, indent: int | None = None) -> str:
    """JSON in which NaN and infinity are null."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
