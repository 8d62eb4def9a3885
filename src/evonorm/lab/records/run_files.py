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
from evonorm.lab.records import record_shape

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Record:
    """One run as its folder tells it.

    metrics: a dict an epoch with epoch (from 1), the metrics of the run's task as train_NAME and val_NAME (shares as
    fractions; None where the number was not finite), learning_rate, images_per_second, seconds.
    summary: status (one of record_shape.STATUSES), epochs_done, best, last, diagnosis, error.
    """

    name: str
    config: dict[str, Any]
    dataset: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """One of record_shape.STATUSES; `running` also where the process died without a word."""
        return str(self.summary.get("status", "running"))


@dataclass(frozen=True)
class Unread:
    """A run's folder that cannot be read: its name, and why and what to do, in words."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} cannot be read and is left out: {self.reason}"


@dataclass(frozen=True)
class Found:
    """Runs by name, and the folders of runs that cannot be read: whoever shows the first tells of the second."""

    records: tuple[Record, ...]
    unread: tuple[Unread, ...] = ()


def read(folder: Path) -> Record:
    """The record in `folder`. Raises UserError naming the file that cannot be read, or holds what none of ours does."""
    config = _checked(folder / "config.json", record_shape.CONFIG)
    return Record(
        name=folder.resolve().name,
        config=config.get("config") or {},
        dataset=config.get("dataset") or {},
        metrics=_epochs(folder),
        summary=_checked(folder / "summary.json", record_shape.SUMMARY, missing={}),
        environment=_checked(folder / "environment.json", record_shape.ENVIRONMENT, missing={}),
    )


def read_all(folder: Path) -> Found:
    """Every run in `folder`: itself if it is a run's, else those in the folders below it."""
    if is_run(folder):
        return read_these([folder])
    return read_these(path for path in sorted(folder.glob("*")) if is_run(path))


def read_these(folders: Iterable[Path]) -> Found:
    """The runs in these folders; one that cannot be read costs itself alone."""
    found, unread = [], []
    for folder in folders:
        try:
            found.append(read(folder))
        except UserError as error:
            # The name says where: a page that is passed on need not show this machine's folders.
            unread.append(Unread(folder.resolve().name, str(error).replace(f"{folder}/", "")))
    return Found(tuple(found), tuple(unread))


def is_run(folder: Path) -> bool:
    """Whether a run was begun here. One without its config.json is one too, broken."""
    return any((folder / name).exists() for name in ("config.json", "summary.json"))


def _checked(
    path: Path, shape: Mapping[str, record_shape.Check], missing: dict[str, Any] | None = None
) -> dict[str, Any]:
    content = read_json(path, missing)
    if (wrong := record_shape.wrong(content, shape)) is not None:
        raise _broken(f"{path}: {wrong}")
    return content


def _epochs(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a run, each with its number."""
    epochs = []
    for place, epoch in enumerate(read_metrics(folder)):
        wrong = record_shape.wrong_epoch(epoch) if epoch.get("epoch") is not None else "it has no epoch"
        if wrong is not None:
            raise _broken(f"{folder / METRICS}, line {place + 1}: {wrong}")
        epochs.append(epoch)
    return epochs


def read_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """The epochs in metrics.jsonl, in order; a last line without its newline, torn by a crash, is left out.

    Raises UserError naming another line that is broken, or a file that cannot be read.
    """
    path = folder / METRICS
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    for place, line in enumerate(lines):
        try:
            content = _finite(json.loads(line))
        except (ValueError, RecursionError) as error:
            if place == len(lines) - 1:
                return
            raise _broken(f"{path}, line {place + 1} is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise _broken(f"{path}, line {place + 1} must hold a JSON object, got {type(content).__name__}")
        yield content


def _broken(what: str) -> UserError:
    return UserError(f"{what}; delete the run's folder to run it again")


def append_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Adds one epoch, on the disk before this returns."""
    path = folder / METRICS
    with _named(path), path.open("a", encoding="utf-8") as file:
        file.write(dumps(metrics) + "\n")
        file.flush()
        os.fsync(file.fileno())


def rewrite_metrics(folder: Path, epochs: Iterable[Mapping[str, Any]]) -> None:
    """Replaces metrics.jsonl by these epochs, at once."""
    write_atomically(folder / METRICS, "".join(dumps(epoch) + "\n" for epoch in epochs).encode())


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


def read_json(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object in `path`. missing: what stands for a file that is not there.

    Raises UserError naming the file if it is broken, or missing without that.
    """
    if missing is not None and not path.exists():
        return missing
    try:
        content = _finite(json.loads(path.read_bytes()))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _broken(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _broken(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def dumps(content: Any, indent: int | None = None) -> str:
    """JSON in which NaN and infinity are null."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False, ensure_ascii=False)


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return found


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
