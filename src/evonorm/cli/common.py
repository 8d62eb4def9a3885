"""What several commands share: exit codes, the options of Ray and of sinks, loading the data."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evonorm.cli.parsing import Parser
from evonorm.lab.errors import UserError
from evonorm.lab.training.config import TrainConfig

if TYPE_CHECKING:
    from rich.console import Console

    from evonorm.lab.data.sets import Dataset
    from evonorm.lab.jobs.executors import Executor
    from evonorm.lab.jobs.job import Target
    from evonorm.lab.records.run_files import Unread
    from evonorm.lab.training.sinks import Wanted
    from evonorm.lab.training.tasks import Task

FAILED, USER_ERROR, DIVERGED, INTERRUPTED = 1, 2, 3, 130


def say_unread(runs: Iterable[Unread]) -> None:
    """Which runs are left out, and why."""
    for one in runs:
        print(f"evonorm: {one}", file=sys.stderr)


def add_ray(command: Parser) -> None:
    """--ray and what goes with it."""
    command.add_argument(
        "--ray",
        type=str | None,
        default=None,
        metavar="ADDRESS",
        help="run on Ray: `local`, a cluster's address as host:port, or auto; needs evonorm[ray]",
    )
    command.add_argument("--cpus_per_trial", type=float | None, default=None, help="with --ray; default: 1")
    command.add_argument(
        "--gpus_per_trial",
        type=float | None,
        default=None,
        help="with --ray, fractions too: 0.25 lets four share one; default: 1 where there is any, else 0",
    )


def executor(options: Any, target: Target, *, trains: bool, most: int | None = None) -> Executor:
    """Where --workers and the options of Ray want jobs run; see executors.make. trains: whether they are trainings."""
    from evonorm.lab.jobs import executors

    return executors.make(
        target,
        workers=options.workers,
        ray=options.ray,
        cpus_per_trial=options.cpus_per_trial,
        gpus_per_trial=options.gpus_per_trial,
        gigabytes_each=executors.TRAINING_GB if trains else None,
        most=most,
    )


def require_one(**numbers: int | None) -> None:
    """Raises UserError for an option below 1."""
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1: got {value}")


def add_sinks(command: Parser) -> None:
    """--wandb and --tensorboard."""
    command.add_argument(
        "--wandb",
        default=None,
        type=Literal["offline", "online"] | None,
        metavar="{offline,online}",
        help="show each run in W&B too; its files lie in the run's folder, project: WANDB_PROJECT, or evonorm",
    )
    command.add_argument(
        "--tensorboard",
        nargs="?",
        const="",
        default=None,
        type=str | None,
        metavar="FOLDER",
        help="show each run in TensorBoard too, below this folder; alone: in the run's own, `tensorboard --logdir OUT`",
    )


def add_time(command: Parser) -> None:
    """--for."""
    command.add_argument(
        "--for",
        type=str | None,
        default=None,
        metavar="TIME",
        help="stop at a checkpoint after this time, as 90s, 9m or 1.5h, as by Ctrl-C: work in rented slots; repeat the "
        "command to go on, on another machine too if the folder is copied there",
    )


def field_help(name: str, *, of: type = TrainConfig) -> str:
    """What the docstring of a dataclass says of a field."""
    import docstring_parser

    parameters = docstring_parser.parse(of.__doc__ or "").params
    return next((p.description or "" for p in parameters if p.arg_name == name), "").replace("\n", " ").rstrip(".")


def require_folder(option: str, file: Path) -> None:
    """Raises UserError unless `file`, which `option` names, can be written: before the work that it is to hold."""
    parent = file.parent
    if not parent.is_dir():
        raise UserError(f"{option} {file}: there is no folder {parent}; make it, or name another file")
    if file.is_dir():
        raise UserError(f"{option} {file} is a folder; name a file")
    if not os.access(file if file.exists() else parent, os.W_OK):
        raise UserError(f"{option} {file}: it may not be written there; name another file")


def sinks(wandb: Literal["offline", "online"] | None, tensorboard: str | None, **membership: Any) -> Wanted:
    """Where the options want runs shown."""
    from evonorm.lab.training.sinks import Wanted

    return Wanted(wandb, tensorboard).of(**membership)


def load(source: str | None, console: Console, task: Task) -> Dataset:
    """The data, and loudly what a reader of results made with it must know."""
    dataset = task.load(source, lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
    if dataset.notice:
        console.rule(style="yellow")
        console.print(f"NOTE: {dataset.notice}", style="bold yellow", markup=False)
        console.rule(style="yellow")
    return dataset
