"""W&B and TensorBoard beside a run: thin copies of what the run folder holds, which stays the source of truth.

Nothing here ends a run: a sink that fails says so once and is left out from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from evonorm.lab.records import run_files
from evonorm.lab.records.run_files import Record, flat
from evonorm.lab.training import tasks
from evonorm.lab.training.progress import Watch


@dataclass(frozen=True)
class Membership:
    """What a run belongs to: W&B's group, job type and tags, and entries of its configuration besides the run's own.

    tags_by_run: more tags of the runs of these names.
    """

    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    tags_by_run: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """Which sinks a user asked for; travels to worker processes.

    wandb: W&B's mode; None: without it. tensorboard: a folder that gets a folder for each run; "": each run's own
    folder; None: without it.
    """

    wandb: Literal["offline", "online"] | None = None
    tensorboard: str | None = None
    membership: Membership = Membership()

    def of(self, **changes: Any) -> Wanted:
        """These sinks for runs of another membership."""
        return replace(self, membership=replace(self.membership, **changes))


class Sink(Protocol):
    """One run's copy in another tool. Whatever it raises is told, and ends the sink alone."""

    def complete(self, record: Record) -> bool:
        """Whether an earlier session wrote all of this ended run."""

    def open(self, record: Record) -> None:
        """A session begins; epochs of earlier ones stay as they are."""

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """An epoch's metrics, once; one that is there already is left out."""

    def close(self, record: Record) -> None:
        """The session ends; the record says how."""


Maker = Callable[[Path, Callable[[str], None]], Sink]


class Recording:
    """A Watch that passes everything on and copies each run below `out` into the sinks, as its folder has it.

    Epochs of earlier sessions that a sink lacks are written first, so that a resumed run has them all, once. To be used
    as a context; `ended` after a run also copies one that was finished before and not trained again.
    """

    def __init__(self, wanted: Wanted, out: Path, watch: Watch) -> None:
        self._wanted, self._out, self._watch = wanted, out, watch
        self._open: dict[str, Sink] = {}
        self._given_up: set[str] = set()
        self._folder: Path | None = None

    def begin(self, name: str, *, steps: int, done: int) -> None:
        """See Watch."""
        self._watch.begin(name, steps=steps, done=done)
        self._close()
        self._begin(self._out / name, anyway=True)

    def step(self, *, epoch: int, step: int, metrics: Mapping[str, float], images_per_second: float) -> None:
        """See Watch."""
        self._watch.step(epoch=epoch, step=step, metrics=metrics, images_per_second=images_per_second)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """See Watch."""
        self._watch.epoch(metrics)
        for name, sink in list(self._open.items()):
            self._guarded(name, partial(sink.epoch, metrics))

    def say(self, text: str) -> None:
        """See Watch."""
        self._watch.say(text)

    def ended(self, record: Record) -> None:
        """A call of train has returned this."""
        if self._folder is None:
            self._begin(self._out / record.name, anyway=False)
        self._close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _begin(self, folder: Path, *, anyway: bool) -> None:
        self._folder = folder
        for name, make in _makers(self._wanted).items():
            if name not in self._given_up:
                self._guarded(name, partial(self._start, name, make, folder, anyway))

    def _start(self, name: str, make: Maker, folder: Path, anyway: bool) -> None:
        sink, record = make(folder, self._watch.say), run_files.read(folder)
        if not anyway and sink.complete(record):
            return
        sink.open(record)
        self._open[name] = sink
        for metrics in record.metrics:
            sink.epoch(metrics)

    def _close(self) -> None:
        folder, self._folder = self._folder, None
        for name, sink in list(self._open.items()):
            if folder is not None:
                self._guarded(name, partial(_end, sink, folder))
        self._open.clear()

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._open.pop(name, None)
            self._given_up.add(name)
            self._watch.say(f"{name}: {_reason(error)}; going on without it, the run's folder has everything")


def _end(sink: Sink, folder: Path) -> None:
    sink.close(run_files.read(folder))


def _makers(wanted: Wanted) -> dict[str, Maker]:
    found: dict[str, Maker] = {}
    if wanted.wandb is not None:
        from evonorm.lab.training.sinks.wandb_sink import WandbSink

        mode = wanted.wandb
        found["W&B"] = lambda folder, say: WandbSink(folder, mode, wanted.membership, say)
    if wanted.tensorboard is not None:
        from evonorm.lab.training.sinks.tensorboard_sink import TensorBoardSink

        base = wanted.tensorboard
        found["TensorBoard"] = lambda folder, say: TensorBoardSink(
            Path(base) / folder.name if base else folder / "tensorboard"
        )
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name in ("wandb", "tensorboard"):
        return f"not installed; pip install 'evonorm[{error.name}]'"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The curves' points of an epoch: what is a number (a record has None for what was not finite)."""
    return {name: value for name, value in metrics.items() if name != "epoch" and value is not None}


def hyperparameters(record: Record) -> dict[str, Any]:
    """The run's configuration, nested names by dots, and the data it ran on."""
    data = {name: record.dataset.get(name) for name in ("fingerprint", "train_images", "test_images")}
    return {**flat(record.config), **{f"data.{name}": value for name, value in data.items() if value is not None}}


def results(record: Record) -> dict[str, Any]:
    """How the run ended, for a sink's summary: status, epochs, the goal's best and where, size, diagnosis."""
    summary, goal = record.summary, tasks.of(record.config).goal.key()
    best, diagnosis = summary.get("best") or {}, summary.get("diagnosis") or {}
    found = {
        "status": record.status,
        "epochs_done": summary.get("epochs_done"),
        f"best.{goal}": best.get(goal),
        "best.epoch": best.get("epoch"),
        "parameters": summary.get("parameters"),
        "diagnosis": diagnosis.get("cause"),
        "error": summary.get("error"),
    }
    return {name: value for name, value in found.items() if value is not None}
