"""`evonorm reproduce`: an experiment, from data to page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from evonorm.cli.common import (
    FAILED,
    INTERRUPTED,
    add_ray,
    add_sinks,
    add_time,
    executor,
    field_help,
    load,
    require_one,
    say_unread,
    sinks,
)
from evonorm.cli.parsing import Parser, given_to
from evonorm.lab.errors import UserError
from evonorm.lab.experiments import catalogue
from evonorm.lab.experiments.experiment import Axis, Experiment
from evonorm.lab.training import tasks
from evonorm.lab.training.config import Seeds


def add(commands: Any, given: Sequence[str] = ()) -> None:
    """Adds the command. given: the command line, which may name an experiment of the user's own, with its own axes."""
    experiments = [*catalogue.EXPERIMENTS.values(), *_own(given)]
    asked = " ".join(f"{one.name}: {one.question}." for one in experiments)
    reproduce = Parser(
        description="Run an experiment and write its page. Finished runs are kept, stopped ones go on: repeat the "
        f"command to resume. {asked} Or a Python file of your own with one Experiment in it.",
        example="evonorm reproduce --data digits --only s0-g8 --out runs",
    )
    reproduce.add_argument("--experiment", default="report", help="which one: a name, or a Python file")
    reproduce.add_argument("--data", default=None, type=str | None, help=field_help("data"))
    budgets = " ".join(f"Of {e.name}, {'; '.join(f'{b.name}: {b.meaning}' for b in e.budgets)}." for e in experiments)
    names = tuple(dict.fromkeys(budget.name for experiment in experiments for budget in experiment.budgets))
    reproduce.add_argument("--budget", default="quick", type=Literal[names], help=budgets)
    reproduce.add_argument("--seeds", nargs="+", type=int, default=None, metavar="SEED", help="one run for each seed")
    reproduce.add_argument("--out", default="runs", help="folder for the runs and the page report.html")
    reproduce.add_argument(
        "--workers", type=int | None, default=None, help="runs at once; default: one a core, as memory and GPUs allow"
    )
    add_time(reproduce)
    add_ray(reproduce)
    for flag, owners in _axes(experiments).items():
        reproduce.add_argument(
            f"--{flag}",
            nargs="+",
            type=owners[0][1].kind,
            default=None,
            metavar=owners[0][1].name.upper(),
            help="; ".join(f"of {experiment.name}, default: {_default(axis)}" for experiment, axis in owners),
        )
    add_sinks(reproduce)
    commands.add_subcommand("reproduce", reproduce, help="an experiment, from data to page")


def run(options: Any) -> int:
    """Runs it; the exit code."""
    experiment = catalogue.find(options.experiment)
    asked = _asked(experiment, options)
    experiment.budget(options.budget)
    require_one(workers=options.workers)
    # Values that there are not are refused before any data is fetched.
    for cell in experiment.cells(asked, options.seeds):
        Seeds(model=cell["seed"])

    from rich.console import Console

    from evonorm.lab.experiments.reproduce import plan, reproduce
    from evonorm.lab.jobs.campaign import print_table, results_table
    from evonorm.lab.pages import page
    from evonorm.lab.training.training import check_place

    console = Console()
    out = Path(options.out)
    check_place(out)
    dataset = load(options.data, console, tasks.find(experiment.task))
    planned = plan(experiment, dataset, out, budget=options.budget, data=options.data, asked=asked, seeds=options.seeds)
    reproduce(
        planned,
        dataset,
        out,
        console,
        lambda target: executor(options, target, trains=True, most=len(planned.runs)),
        sinks=sinks(options.wandb, options.tensorboard),
    )
    if len(planned.runs) <= 24:
        print_table(console, results_table(planned.runs, width=console.width if console.is_terminal else None))
    stopped = any(run.status in ("stopped", "waiting") for run in planned.runs)
    written = out / f"{experiment.name}.html"
    try:
        say_unread(page.write(out, written, comparison=planned.listing.name))
        console.print(f"page: {written}", markup=False, highlight=False, soft_wrap=True)
    except UserError as error:
        if not stopped:
            raise
        console.print(f"no page: {error}", markup=False, highlight=False, soft_wrap=True)
    if stopped:
        console.print("stopped; repeat the command to go on", markup=False)
        return INTERRUPTED
    return FAILED if any(run.status == "failed" for run in planned.runs) else 0


def _own(given: Sequence[str]) -> list[Experiment]:
    """The user's experiment, where the command line names one by its file."""
    names = given_to("--experiment", given)
    return [catalogue.find(name) for name in names[-1:] if name.endswith(".py")]


def _axes(experiments: Sequence[Experiment]) -> dict[str, list[tuple[Experiment, Axis]]]:
    """Every option that is an axis, with whose it is."""
    found: dict[str, list[tuple[Experiment, Axis]]] = {}
    for experiment in experiments:
        for axis in experiment.axes:
            found.setdefault(axis.flag, []).append((experiment, axis))
    return found


def _default(axis: Axis) -> str:
    return axis.help or ", ".join(f"{value}" for value in axis.values({}))


def _asked(experiment: Experiment, options: Any) -> dict[str, Sequence[Any] | None]:
    """The axes' values that were asked for. Raises UserError for an option that this experiment has not."""
    own = {axis.flag: axis.name for axis in experiment.axes}
    for flag, owners in _axes([*catalogue.EXPERIMENTS.values()]).items():
        if flag not in own and options[flag] is not None:
            names = " and ".join(one.name for one, _ in owners)
            raise UserError(
                f"--{flag.replace('_', '-')} is for --experiment {names}: got --experiment {experiment.name}"
            )
    return {name: options[flag] for flag, name in own.items()}
