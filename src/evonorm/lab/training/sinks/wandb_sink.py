"""A run in W&B, through the wandb package. Its files lie in the run's folder: `wandb sync RUN/wandb/offline-run-*`."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evonorm.lab.records.run_files import Record
from evonorm.lab.records.wandb_file import BrokenFile, Row, Tail
from evonorm.lab.training import sinks

if TYPE_CHECKING:
    import wandb

PROJECT = "evonorm"
# Offline and online: how long the last epochs may be in memory alone, and how long a dead network may hold up a run.
FLUSH_SECONDS, INIT_SECONDS, FINISH_SECONDS = 1.0, 30.0, 60.0
WRITTEN_SECONDS = 5.0


class WandbSink:
    """Every session of a run is one W&B run: its id is taken from the files in the run's folder.

    Which epochs it has is read from those files too. Never asks for a login: online without a key, or without a
    network, it says so and records offline. The project is WANDB_PROJECT, or "evonorm".
    """

    def __init__(
        self,
        folder: Path,
        mode: Literal["offline", "online"],
        membership: sinks.Membership,
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._mode, self._membership, self._say = folder, mode, membership, say
        self._run: wandb.Run | None = None
        self._epochs: set[int] = set()

    def complete(self, record: Record) -> bool:
        """See Sink."""
        rows = list(self._rows())
        epochs = {row.values.get("epoch") for row in rows if not row.summary}
        status = next((row.values["status"] for row in reversed(rows) if "status" in row.values), None)
        return status == record.status and epochs >= {metrics["epoch"] for metrics in record.metrics}

    def open(self, record: Record) -> None:
        """See Sink."""
        if self._mode == "online" and (trouble := _cannot_log_in()) is not None:
            self._mode = "offline"
            self._say(f"W&B: {trouble}; recording offline, for `wandb sync {self._folder}/wandb/offline-run-*`")
        self._epochs = {row.values["epoch"] for row in self._rows() if not row.summary and "epoch" in row.values}
        self._run = self._init(record)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """See Sink."""
        epoch = metrics["epoch"]
        if self._run is None or epoch in self._epochs:
            return
        self._run.log({"epoch": epoch, **sinks.finite(metrics)}, step=epoch, commit=True)
        self._epochs.add(epoch)

    def close(self, record: Record) -> None:
        """See Sink."""
        if self._run is None:
            return
        run, self._run = self._run, None
        run.summary.update(sinks.results(record))
        run.finish(exit_code=int(record.status in ("failed", "diverged")))
        # finish returns a little before its file is whole, and says nothing of a disk that does not take it.
        until = time.monotonic() + WRITTEN_SECONDS
        while not self.complete(record):
            if time.monotonic() > until:
                raise OSError("its file lacks some of what was logged; is there space on the disk?")
            time.sleep(0.01)

    def _init(self, record: Record) -> wandb.Run:
        import wandb

        belongs = self._membership
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            dir=str(self._folder),
            id=self._id(),
            name=record.name,
            group=belongs.group,
            job_type=belongs.job_type,
            tags=(*belongs.tags, *belongs.tags_by_run.get(record.name, ())) or None,
            config={**sinks.hyperparameters(record), **belongs.config},
            mode=self._mode,
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_job_creation=True,
                init_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,
                x_transaction_log_flush_interval=FLUSH_SECONDS,
            ),
        )

    def _id(self) -> str | None:
        """Of the W&B run that this run already is, if any."""
        files = sorted(self._folder.glob("wandb/*run-*/run-*.wandb"))
        return files[-1].stem.removeprefix("run-") if files else None

    def _rows(self) -> Iterator[Row]:
        """What sessions in this mode wrote, up to where a file is damaged."""
        kind = "offline-run" if self._mode == "offline" else "run"
        for path in sorted(self._folder.glob(f"wandb/{kind}-*/*.wandb")):
            try:
                yield from Tail(path).rows()
            except BrokenFile:
                continue


@functools.cache
def _cannot_log_in() -> str | None:
    """Why not, without asking the user for anything; None where it is possible.

    Asked before wandb.init, which holds a run's id even where it fails: it could not be gone on with offline. Asked
    once: where there is no network it takes ten seconds to say so.
    """
    import wandb

    try:
        return None if wandb.login(prompt=False, verify=True) else "no API key: `wandb login` keeps one"
    except Exception as error:
        return f"cannot log in ({type(error).__name__})"
