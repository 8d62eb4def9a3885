"""What a program logs with W&B, read while it runs from the .wandb file that W&B writes; no server, no change to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evonorm.lab.jobs.job import Job, Reporter
from evonorm.lab.records.run_files import flat
from evonorm.lab.records.wandb_file import BrokenFile, Tail

PARAMETERS_FILE = "wandb-parameters.yaml"
# How long W&B may keep what was logged before it is in the file: with its own 15 s, early stops would come late.
FLUSH_SECONDS = 0.2


class OneSource:
    """Passes a program's reports on. The sweep's metric is taken from where it first came, print or W&B: a program that
    does both would otherwise report it twice.
    """

    def __init__(self, reporter: Reporter, metric: str | None) -> None:
        self._reporter, self._metric = reporter, metric
        self.source: str | None = None

    def tell(self, source: str, metrics: Mapping[str, Any]) -> None:
        """One report from `source`; nested values go by their dotted names."""
        metrics = flat(metrics)
        if self._metric is not None and self._metric in metrics:
            self.source = self.source or source
            if source != self.source:
                metrics = {name: value for name, value in metrics.items() if name != self._metric}
        if metrics:
            self._reporter.tell(metrics)

    def lacks(self, metrics: Mapping[str, Any]) -> bool:
        """Whether the metric is among these, and was never told."""
        return self.source is None and self._metric in metrics

    def stop_requested(self) -> bool:
        """See Reporter."""
        return self._reporter.stop_requested()


class WandbReports:
    """One attempt's W&B files: `wandb/` in the trial's folder, unless the program gives wandb.init a `dir` of its own.

    A summary that the program sets itself is told when it ends, if the metric, or anything at all, was never logged.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._before = set(self._files())
        self._tails: dict[Path, Tail] = {}
        self._summary: dict[str, Any] = {}
        self._logged = self._broken = False

    def environment(self, before: Mapping[str, str], *, mode: str | None = None) -> dict[str, str]:
        """The environment `before`, with what makes W&B write here and puts the trial's parameters in wandb.config."""
        import yaml

        path = self._job.folder.resolve() / PARAMETERS_FILE
        # Written as YAML, not as JSON: W&B's reader takes a number like 1e-05 for text.
        content = {name: {"value": value} for name, value in self._job.parameters.items()}
        path.write_text(yaml.safe_dump({"wandb_version": 1, **content}, sort_keys=False), encoding="utf-8")
        ours = {
            "WANDB_DIR": str(self._job.folder.resolve()),
            "WANDB_SWEEP_PARAM_PATH": str(path),
            "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": str(FLUSH_SECONDS),
        }
        if mode is not None:
            ours["WANDB_MODE"] = mode
        membership = {
            "WANDB_RUN_GROUP": self._job.sweep_folder.resolve().name,
            "WANDB_JOB_TYPE": "trial",
            "WANDB_NAME": f"trial-{self._job.number:04}",
        }
        return {"WANDB_MODE": "offline", **membership, **before, **ours}

    def tell(self, reporter: OneSource, *, ended: bool = False) -> None:
        """Reports what was logged since the last call. ended: the program will write no more."""
        for path in self._files():
            if path not in self._before:
                self._tails.setdefault(path, Tail(path))
        for tail in self._tails.values():
            self._tell(tail, reporter)
        if ended and self._summary and (not self._logged or reporter.lacks(self._summary)):
            reporter.tell("summary", self._summary)

    def _tell(self, tail: Tail, reporter: OneSource) -> None:
        if self._broken:
            return
        try:
            for row in tail.rows():
                values = {name: value for name, value in row.values.items() if not isinstance(value, dict | list)}
                if row.summary:
                    self._summary |= values
                elif values:
                    self._logged = True
                    reporter.tell("wandb", values)
        except (OSError, BrokenFile) as error:
            self._broken = True
            print(f"evonorm: what this program logs with W&B is read no further: {error}", flush=True)

    def _files(self) -> list[Path]:
        return sorted(self._job.folder.glob("wandb/*run-*/*.wandb"))
