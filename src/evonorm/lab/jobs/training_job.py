"""Trials of our own training: a sweep's parameters become a TrainConfig by name, a trial becomes a run folder."""

from __future__ import annotations

import time
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonorm.lab.errors import UserError
from evonorm.lab.jobs.job import Job, Outcome, Reporter
from evonorm.lab.records.run_files import flat
from evonorm.lab.training import tasks
from evonorm.lab.training.config import Seeds, TrainConfig, not_identity
from evonorm.lab.training.progress import Silent
from evonorm.lab.training.sinks import Recording, Wanted
from evonorm.spelling import meant

if TYPE_CHECKING:
    from evonorm.lab.data.sets import Dataset

MOVED_SECONDS = 1.0
# A task's name, and what `data` is.
Source = tuple[str, str | None]


class Training:
    """Trains networks in run folders below the sweep's; a stopped or killed run goes on from its checkpoint.

    fixed: values of TrainConfig fields for every trial. fingerprint: of the data, for a repeated command to agree with.
    sinks: where else the runs are shown.
    sources: what task and `data` are in any trial; where nodes do not see this machine's disk, the images of these
    travel.
    """

    resumes = True
    ships_folder = False

    def __init__(
        self,
        fixed: Mapping[str, Any],
        fingerprint: str,
        sinks: Wanted | None = None,
        sources: Iterable[Source] = (),
    ) -> None:
        self._fixed, self._fingerprint, self._sinks = dict(fixed), fingerprint, sinks or Wanted()
        self._sources = tuple(sources)
        self._datasets: dict[Source, Dataset] = {}
        self._tasks = tasks.added()

    def cargo(self) -> dict[Source, Dataset]:
        """See Carrying."""
        known = [(tasks.find(task), data) for task, data in self._sources]
        return {(task.name, data): task.load(data, print) for task, data in known}

    def unload(self, cargo: dict[Source, Dataset]) -> None:
        """See Carrying."""
        self._datasets = cargo

    def describe(self) -> dict[str, Any]:
        """See Target."""
        left_out = not_identity(tasks.find(str(self._fixed.get("task", tasks.DEFAULT))).options)
        fixed = {key: value for key, value in self._fixed.items() if key not in left_out}
        return {"training": fixed, "data": self._fingerprint}

    def place(self, parameters: dict[str, Any]) -> str | None:
        """See Target: the run folder, one for all that comes to the same, as groups do in a network without them."""
        from evonorm.lab.training.training import name_of

        config = config_of({**self._fixed, **parameters})
        return name_of(config, str(config.data))

    def run(self, job: Job, reporter: Reporter) -> Outcome:
        """See Target."""
        from evonorm.lab.records import run_files
        from evonorm.lab.training.training import run_folder, train

        for task in self._tasks:
            tasks.add(task)
        config = config_of({**self._fixed, **job.parameters})
        dataset = self._loaded(tasks.get(config.task), config.data)
        folder = run_folder(config, dataset, job.sweep_folder)
        watch = _Watch(folder, reporter, tasks.get(config.task))
        with Recording(self._sinks_of(job), job.sweep_folder, watch) as recording:
            try:
                record = train(config, dataset, job.sweep_folder, watch=recording, stop=reporter.stop_requested)
            except KeyboardInterrupt:  # Ctrl-C reaches the whole terminal; here when there was no step left to stop at
                if not folder.exists():  # or none yet
                    raise
                record = run_files.read(folder)
            recording.ended(record)
        for epoch in record.metrics[watch.told :]:
            watch.epoch(epoch)
        diagnosis = record.summary.get("diagnosis") or {}
        return Outcome(record.status, error=diagnosis.get("cause"), run=record.name)

    def _sinks_of(self, job: Job) -> Wanted:
        belongs = self._sinks.membership
        config = {"trial": job.number} if belongs.job_type == "trial" else {}
        return self._sinks.of(group=belongs.group or job.sweep_folder.resolve().name, config=config)

    def _loaded(self, task: tasks.Task, source: str | None) -> Dataset:
        key = task.name, source
        if key not in self._datasets:
            self._datasets = {key: task.load(source, print)}  # one at a time: they are large
        return self._datasets[key]


class _Watch(Silent):
    """Passes on how far the run is, and its epochs, first those of an earlier attempt."""

    def __init__(self, folder: Path, reporter: Reporter, task: tasks.Task) -> None:
        self.told = 0
        self._folder, self._reporter, self._aliases = folder, reporter, task.aliases
        self._steps, self._done, self._moved = 1, 0, 0.0

    def begin(self, name: str, *, steps: int, done: int) -> None:
        from evonorm.lab.records import run_files

        self._steps, self._done = steps, done
        for epoch in run_files.read_metrics(self._folder):
            self.epoch(epoch)

    def step(self, *, epoch: int, step: int, metrics: Mapping[str, float], images_per_second: float) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._moved >= MOVED_SECONDS:
            self._moved = now
            self._reporter.moved(self._done / self._steps)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        self.told += 1
        self._reporter.tell({**metrics, **{theirs: metrics[ours] for theirs, ours in self._aliases.items()}})

    def say(self, text: str) -> None:
        print(text, flush=True)


def config_of(parameters: Mapping[str, Any]) -> TrainConfig:
    """The run these parameters mean. Raises UserError naming a parameter that is unknown or does not fit."""
    given = flat({name: value for name, value in parameters.items() if (name, value) != ("options", None)})
    task = tasks.find(coerced("task", given.pop("task", tasks.DEFAULT)))
    parts: dict[str, dict[str, Any]] = {"": {}, "seeds": {}, "options": {}}
    for name, value in given.items():
        above, _, field = name.rpartition(".")
        parts.setdefault(above, {})[field] = coerced(name, value, task)
    options = task.options(**parts["options"]) if task.options else None
    return TrainConfig(**parts[""], task=task.name, seeds=Seeds(**parts["seeds"]), options=options)


def check_names(config: TrainConfig) -> None:
    """Raises UserError for a task, layer or model that is not there; torch is imported only to look one up."""
    task = tasks.get(config.task)
    try:
        if config.layer != TrainConfig.layer:
            from evonorm.layers import table

            table.get(config.layer)
        if config.model != TrainConfig.model:
            task.work_class.known(config.model)
    except ValueError as error:
        raise UserError(str(error)) from None


def names(task: tasks.Task = tasks.CLASSIFICATION) -> list[str]:
    """Every parameter that training knows, with the task's own."""
    return list(_hints(task))


def types_of(name: str, task: tasks.Task = tasks.CLASSIFICATION) -> tuple[Any, ...]:
    """What a parameter may be. Raises UserError for one that training does not know."""
    found = _hints(task)
    if name not in found:
        raise UserError(f"training has no parameter {name!r}{meant(name, found)}; it knows {', '.join(found)}")
    hint = found[name]
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _hints(task: tasks.Task) -> dict[str, Any]:
    """Every parameter's type; parts of a configuration are told by their fields."""
    owners: list[tuple[str, type[Any]]] = [("", TrainConfig), ("seeds.", Seeds)]
    owners += [("options.", task.options)] if task.options else []
    found = {f"{above}{name}": hint for above, owner in owners for name, hint in typing.get_type_hints(owner).items()}
    return {name: hint for name, hint in found.items() if name not in ("seeds", "options")}


def coerced(name: str, value: Any, task: tasks.Task = tasks.CLASSIFICATION) -> Any:
    """`value` as the parameter takes it: "1e-5" as a number, 3.0 as an integer, "true" as a switch.

    Raises UserError for a name that training does not know, or a value that does not fit.
    """
    kinds = types_of(name, task)
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            if value in typing.get_args(kind):
                return value
            raise UserError(f"{name} must be one of {', '.join(typing.get_args(kind))}: got {value!r}")
        if kind is bool:
            if isinstance(value, bool):
                return value
            if str(value).lower() in ("true", "false"):
                return str(value).lower() == "true"
        elif kind is str:
            if isinstance(value, str):
                return value
        elif kind in (int, float) and not isinstance(value, bool):
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            if kind is float:
                return number
            if number.is_integer():
                return int(number)
    wanted = " or ".join("none" if kind is type(None) else kind.__name__ for kind in kinds)
    raise UserError(f"{name} takes {wanted}: got {value!r}")
