"""`evonorm sweep`: a W&B sweep file, run without a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from evonorm.cli.parsing import Parser
from evonorm.lab.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

WORDS = ("run", "status", "best", "-h", "--help")


def add(commands: Any) -> None:
    """Adds the command and those below it."""
    sweep = Parser(
        description="Run a W&B sweep file, YAML or JSON, without a server: `evonorm sweep FILE --out FOLDER` is short "
        "for `evonorm sweep run`. Repeat the command to go on: no trial is drawn twice, none that ended is lost.",
        example="evonorm sweep sweep.yaml --out sweep",
    )
    commands.add_subcommand("sweep", sweep, help="a W&B sweep file, run without a server")
    _add_commands(sweep)


def run(options: Any) -> int:
    """Runs one of them; the exit code."""
    command = options.subcommand
    return {"run": _run, "status": _status, "best": _best}[command](options[command])


def _add_commands(sweep: Parser) -> None:
    commands = sweep.add_subcommands(required=True, metavar="COMMAND")

    run = Parser(
        description="Run the trials of a sweep file: of its `program`, or, without one, of this lab's training, whose "
        "options (`evonorm train --help`) the file's parameters name.",
        example="evonorm sweep run sweep.yaml --out sweep --set epochs=3",
    )
    run.add_argument("file", metavar="FILE", help="W&B sweep configuration, YAML or JSON")
    run.add_argument("--out", required=True, metavar="FOLDER", help="folder of the sweep and its trials")
    run.add_argument(
        "--workers", type=int | None, default=None, help="trials at once; default: one a core, as memory and GPUs allow"
    )
    add_time(run)
    add_ray(run)
    run.add_argument("--seed", type=int | None, default=None, help="of the draws; default: 0, or what the folder has")
    run.add_argument("--trials", type=int | None, default=None, help="at most so many trials, earlier ones counted")
    run.add_argument("--data", default=None, type=str | None, help=field_help("data"))
    run.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="options of training for every trial, in the place of the file's, as in --set epochs=3 train_images=1000",
    )
    add_sinks(run)
    commands.add_subcommand("run", run, help="run a sweep file, or go on with it")

    status = Parser(
        description="Where a sweep stands: how many trials, which is best, which failed and why.",
        example="evonorm sweep status sweep",
    )
    status.add_argument("folder", metavar="FOLDER", help="--out of the sweep")
    commands.add_subcommand("status", status, help="where a sweep stands")

    best = Parser(description="The parameters of a sweep's best trial, as JSON.", example="evonorm sweep best sweep")
    best.add_argument("folder", metavar="FOLDER", help="--out of the sweep")
    best.add_argument(
        "--as_args", action="store_true", help="as options of a command: --learning_rate=0.01 --epochs=10"
    )
    commands.add_subcommand("best", best, help="the best trial's parameters")


def _run(options: Any) -> int:
    from rich.console import Console

    from evonorm.lab.sweep import command, view
    from evonorm.lab.sweep.driver import drive

    require_one(workers=options.workers, trials=options.trials)
    console = Console()
    wanted = sinks(options.wandb, options.tensorboard)
    chosen = command.read(Path(options.file), data=options.data, settings=options.set)
    target = command.target(
        chosen, Path(options.file), load=lambda source, task: load(source, console, task), sinks=wanted
    )
    with view.shown(console, Path(options.out)) as watch:
        where = executor(options, target, trains=chosen.trains)
        out, seed, trials = Path(options.out), options.seed, options.trials
        result = drive(chosen.sweep, target, out, where, seed=seed, trials=trials, view=watch)
    _page(result.folder, console)
    if result.stopped:
        console.print("stopped; repeat the command to go on", markup=False)
        return INTERRUPTED
    return FAILED if any(trial.status == "failed" for trial in result.trials) else 0


def _page(folder: Path, console: Console) -> None:
    """Writes the page beside the trials; if it cannot be, the sweep has ended well all the same."""
    from evonorm.lab.pages import page

    try:
        say_unread(page.write(folder, folder / "report.html"))
    except UserError as error:
        console.print(f"no page: {error}", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(f"page: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def _status(options: Any) -> int:
    from evonorm.lab.sweep import command

    print(command.status(Path(options.folder)))
    return 0


def _best(options: Any) -> int:
    from evonorm.lab.sweep import command

    print(command.best(Path(options.folder), as_args=options.as_args))
    return 0
