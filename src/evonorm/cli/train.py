"""`evonorm train`: one training run, or where its time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonorm.cli import config_file
from evonorm.cli.common import (
    DIVERGED,
    FAILED,
    INTERRUPTED,
    USER_ERROR,
    add_sinks,
    add_time,
    field_help,
    load,
    require_folder,
    sinks,
)
from evonorm.cli.parsing import Parser, given_to
from evonorm.lab.errors import UserError
from evonorm.lab.jobs import training_job
from evonorm.lab.training import tasks
from evonorm.lab.training.config import Seeds, TrainConfig

if TYPE_CHECKING:
    from rich.console import Console

    from evonorm.lab.data.sets import Dataset

_SEEDS = tuple(field.name for field in fields(Seeds))


def add(commands: Any, given: Sequence[str] = ()) -> None:
    """Adds the command. given: the command line, which may name a task with options of its own."""
    train = Parser(
        description="Train a network once, by default Mini Inception. The run's folder below --out is named by its "
        "configuration: the same command resumes a stopped run and does not repeat a finished one. "
        "A YAML file given with --config holds the same names, with underscores.",
        example="evonorm train --data digits --layer evonorm-s0 --groups 8 --epochs 3",
    )
    train.add_argument("--config", action="config", help="YAML file with any of the options below")
    train.add_class_arguments(TrainConfig, as_group=False, skip={"seeds", "options"})
    if own := _task_of(given).options:
        train.add_class_arguments(own, "options")
    train.add_argument("--seed", type=int | None, default=None, help="all the seeds below at once; default: 0")
    for name in _SEEDS:
        help = field_help(name, of=Seeds)
        train.add_argument(f"--seeds.{name}", type=int | None, default=None, help=f"{help}; default: --seed")
    train.add_argument("--out", default="runs", help="folder for the run's folder")
    add_time(train)
    add_sinks(train)
    train.add_argument(
        "--profile",
        nargs="?",
        const=10,
        default=None,
        type=int | None,
        metavar="STEPS",
        help="instead of a run: where the time of a training step goes, from so many steps (alone: 10); "
        "leaves no run folder",
    )
    train.add_argument(
        "--profile_json",
        default=None,
        type=str | None,
        metavar="FILE",
        help="with --profile: writes it there too, with every step and the conditions",
    )
    commands.add_subcommand("train", train, help="one training run")


def names(given: Sequence[str]) -> list[str]:
    """The names that a file given with --config may hold. given: the command line."""
    own = ["seed", "out", "for", "wandb", "tensorboard", "profile", "profile_json"]
    return [*training_job.names(_task_of(given)), *own]


def _task_of(given: Sequence[str]) -> tasks.Task:
    """The task that a command line of `train` names, by itself or in a file given with --config."""
    if given[:1] != ["train"]:
        return tasks.CLASSIFICATION
    named = [name for file in config_file.given_in(given) for name in config_file.task_of(file)]
    return tasks.find([tasks.DEFAULT, *named, *given_to("--task", given)][-1])


def run(options: Any) -> int:
    """Runs it; the exit code."""
    from rich.console import Console

    from evonorm.lab.training import replicas
    from evonorm.lab.training.progress import shown
    from evonorm.lab.training.sinks import Recording, Wanted
    from evonorm.lab.training.training import check, train

    values = dict(options.as_dict())
    values.pop("config", None)
    values.pop("for")
    out = Path(values.pop("out"))
    wanted = sinks(values.pop("wandb"), values.pop("tensorboard"), job_type="train")
    profile_steps, profile_json = values.pop("profile"), values.pop("profile_json")
    seed, seeds = values.pop("seed") or 0, values.pop("seeds")
    given = {name: seed if value is None else value for name, value in seeds.items()}
    task = tasks.find(values.pop("task"))
    own = task.options(**values.pop("options")) if task.options else None
    config = TrainConfig(**values, task=task.name, options=own, seeds=Seeds(**given))
    if profile_json is not None and profile_steps is None:
        raise UserError(f"--profile-json {profile_json} needs --profile")
    if profile_steps is not None and profile_steps < 1:
        raise UserError(f"--profile must be at least 1 step: got {profile_steps}")
    if profile_json is not None:
        require_folder("--profile-json", Path(profile_json))
    with replicas.launched(config.device) as group:
        console = Console(quiet=not group.first)
        try:
            check(config, out if profile_steps is None else None)
            dataset = group.in_turn(lambda: load(config.data, console, task))
            if profile_steps is not None:
                return _profile(config, dataset, console, profile_steps, profile_json)
            shown_in = wanted if group.first else Wanted()
            with shown(console) as watch, Recording(shown_in, out, watch) as recording:
                record = train(config, dataset, out, watch=recording)
                recording.ended(record)
        except UserError:
            if group.first:
                raise
            return USER_ERROR  # the first says it
    console.print(f"{record.status}: {out / record.name}", markup=False, highlight=False, soft_wrap=True)
    if record.status == "stopped":
        console.print("repeat the command to go on", markup=False)
    return {"finished": 0, "diverged": DIVERGED, "stopped": INTERRUPTED}.get(record.status, FAILED)


def _profile(config: TrainConfig, dataset: Dataset, console: Console, steps: int, file: str | None) -> int:
    from evonorm.lab.jobs.board import print_table
    from evonorm.lab.records import run_files
    from evonorm.lab.training.profile import profile
    from evonorm.lab.training.progress import Plain

    result = profile(config, dataset, steps=steps, watch=Plain(console))
    print_table(console, result.table())
    console.print(result.notes(), markup=False, highlight=False, soft_wrap=True)
    if file is not None:
        run_files.write_json(Path(file), result.as_json())
        console.print(f"profile: {file}", markup=False, highlight=False, soft_wrap=True)
    return 0
