"""What `evonorm sweep` does: a file and options in, trials out; status and best of a folder."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonorm.lab.errors import UserError
from evonorm.lab.jobs import training_job
from evonorm.lab.jobs.job import Target
from evonorm.lab.records.run_files import flat
from evonorm.lab.sweep import driver, macros, of_training, schema, view
from evonorm.lab.sweep.program import Program
from evonorm.lab.sweep.schema import Metric, Sweep
from evonorm.lab.training import tasks
from evonorm.lab.training.sinks import Wanted
from evonorm.lab.training.tasks import Task

if TYPE_CHECKING:
    from evonorm.lab.data.sets import Dataset


@dataclass(frozen=True)
class Chosen:
    """A sweep, and the options of training that hold for each of its trials."""

    sweep: Sweep
    fixed: Mapping[str, Any]

    @property
    def trains(self) -> bool:
        """Whether it runs this lab's training, not a program of its own."""
        return not (self.sweep.program or self.sweep.command)


def read(file: Path, *, data: str | None, settings: Sequence[str]) -> Chosen:
    """The sweep in `file`. data, settings (NAME=VALUE words): options of training that take the file's place.

    Raises UserError for a file, a name or a value that does not hold.
    """
    sweep = schema.read(file)
    words = dict(_name_and_text(word) for word in settings)
    task = words.get("task") or of_training.task_names(sweep, {})[0]
    fixed = {name: _value(name, text, task) for name, text in words.items()}
    if data is not None:
        fixed["data"] = data
    chosen = Chosen(sweep, fixed)
    if not chosen.trains:
        if fixed:
            raise UserError(
                f"--{'set' if data is None else 'data'} is for this lab's training: {file} names its own program"
            )
        return chosen
    kept = tuple(parameter for parameter in sweep.parameters if parameter.name not in fixed)
    set_aside = [parameter.name for parameter in sweep.parameters if parameter.name in fixed]
    notes = [f"parameters.{name}: set aside, {name} is {fixed[name]} for every trial" for name in set_aside]
    sweep = replace(sweep, parameters=kept)
    try:
        notes += of_training.check(sweep, fixed)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return Chosen(replace(sweep, notes=(*sweep.notes, *notes)), fixed)


def target(chosen: Chosen, file: Path, *, load: Callable[[str | None, Task], Dataset], sinks: Wanted) -> Target:
    """What the trials run. load: reads the data, once here, so that the workers find it decoded and cached.

    sinks: where else runs are shown; a program of its own is only told W&B's mode.
    """
    if not chosen.trains:
        if sinks.tensorboard is not None:
            raise UserError(f"--tensorboard is for this lab's training: {file} names its own program")
        return Program(chosen.sweep, file.parent, wandb=sinks.wandb)
    swept = {parameter.name: parameter.distribution.values for parameter in chosen.sweep.parameters}
    names = of_training.task_names(chosen.sweep, chosen.fixed)
    sources = [(name, data) for name in names for data in swept.get("data", (chosen.fixed.get("data"),))]
    sinks = sinks.of(group=chosen.sweep.name, job_type="trial", tags=("sweep", chosen.sweep.method))
    fingerprint = "+".join(load(data, tasks.find(name)).fingerprint for name, data in sources)
    return training_job.Training(chosen.fixed, fingerprint, sinks, sources)


def status(folder: Path) -> str:
    """Where the sweep in `folder` stands. Raises UserError if there is none."""
    content, trials = driver.read_sweep(folder)
    return view.status(content["sweep"]["metric"], trials, driver.best_by(_metric(content), trials), folder)


def best(folder: Path, *, as_args: bool) -> str:
    """The best trial's parameters as JSON, or as the options of a command. Raises UserError if there is none yet."""
    content, trials = driver.read_sweep(folder)
    found = driver.best_by(_metric(content), trials)
    if found is None:
        raise UserError(f"no trial in {folder} has a value of the metric yet; see `evonorm sweep status {folder}`")
    if not as_args:
        return json.dumps(found.parameters, indent=2)
    if "training" not in content["runs"]:
        return shlex.join(macros.arguments(found.parameters))
    parameters = {**content["runs"]["training"], **flat(found.parameters)}
    return shlex.join(f"--{name}={_as_argument(value)}" for name, value in parameters.items())


def _metric(content: Mapping[str, Any]) -> Metric | None:
    metric = content["sweep"]["metric"]
    return None if metric is None else Metric(**metric)


def _as_argument(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _name_and_text(word: str) -> tuple[str, str]:
    name, equals, text = word.partition("=")
    if not equals:
        raise UserError(f"--set takes NAME=VALUE words: got {word!r}")
    return name, text


def _value(name: str, text: str, task: str) -> Any:
    owner = tasks.find(task)
    if text in ("none", "null"):
        # Nothing, where an option can be that; else a word, as the layer called none.
        with contextlib.suppress(UserError):
            return training_job.coerced(name, None, owner)
    return training_job.coerced(name, text, owner)
