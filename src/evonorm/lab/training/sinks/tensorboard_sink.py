"""A run in TensorBoard, through torch.utils.tensorboard: curves, hyperparameters, final metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonorm.lab.records.run_files import Record
from evonorm.lab.training import sinks, tasks

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoardSink:
    """One folder a run, a file a session; which epochs it has is read from those files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._written: dict[str, set[int]] = {}
        self._ends: Any = None

    def complete(self, record: Record) -> bool:
        """See Sink."""
        written, goal = self._read(), _goal(record)
        wanted = {metrics["epoch"] for metrics in record.metrics if metrics.get(goal) is not None}
        best = written.get(f"best/{goal}") or not record.summary.get("best")
        return written.get(goal, set()) >= wanted and bool(best)

    def open(self, record: Record) -> None:
        """See Sink."""
        from torch.utils.tensorboard.summary import hparams
        from torch.utils.tensorboard.writer import SummaryWriter

        self._written = self._read()
        self._writer = SummaryWriter(str(self._folder), max_queue=1)
        values = {name: value for name, value in sinks.hyperparameters(record).items() if value is not None}
        experiment, starts, self._ends = hparams(values, dict.fromkeys(_final(record), 0.0))  # type: ignore[no-untyped-call]
        if not self._written:
            self._summarize(experiment, starts)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """See Sink."""
        for name, value in sinks.finite(metrics).items():
            self._add(name, value, metrics["epoch"])
        if self._writer is not None:
            self._writer.flush()

    def close(self, record: Record) -> None:
        """See Sink."""
        if self._writer is None:
            return
        best = record.summary.get("best")
        if best is not None and record.status != "stopped":
            goal = _goal(record)
            self._add(f"best/{goal}", best[goal], best["epoch"])
            self._summarize(self._ends)
        self._writer.close()

    def _add(self, name: str, value: float, epoch: int) -> None:
        if self._writer is not None and epoch not in self._written.get(name, ()):
            self._writer.add_scalar(name, value, epoch)

    def _summarize(self, *summaries: Any) -> None:
        writer: Any = self._writer
        for summary in summaries:
            writer.file_writer.add_summary(summary)
        writer.flush()

    def _read(self) -> dict[str, set[int]]:
        """The epochs of each curve that earlier sessions wrote."""
        if not self._folder.is_dir():
            return {}
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(self._folder), size_guidance={"scalars": 0})
        events.Reload()
        return {name: {point.step for point in events.Scalars(name)} for name in events.Tags()["scalars"]}


def _goal(record: Record) -> str:
    return tasks.of(record.config).goal.key()


def _final(record: Record) -> tuple[str, ...]:
    """What the HPARAMS page shows of a run: the last point of these curves, validation first."""
    metrics = [name for name in tasks.of(record.config).figures if name not in tasks.PACE]
    return (*reversed(metrics), f"best/{_goal(record)}")
