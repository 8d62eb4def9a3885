"""`evonorm reproduce`: an experiment, from data to page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evonorm.cli.common import FAILED, INTERRUPTED, add_ray, add_sinks, field_help, load, say_unread, sinks
from evonorm.cli.parsing import Parser
from evonorm.lab.errors import UserError
from evonorm.lab.experiments import architectures, batch_sizes, ladder
from evonorm.lab.experiments.report_runs import BUDGETS, EXPERIMENTS, VARIANTS
from evonorm.lab.training.config import Seeds

if TYPE_CHECKING:
    from rich.console import Console

    from evonorm.lab.data.sets import ImageDataset
    from evonorm.lab.experiments.reproduce import Plan


def add(commands: Any) -> None:
    """Adds the command."""
    reproduce = Parser(
        description="Run an experiment and write its page. Finished runs are kept, stopped ones go on: repeat the "
        "command to resume. "
        "report: the report's runs, as published (its EvoNorm layers were identities) and as intended. "
        "learning-rate: every layer at its own best learning rate, with equal trials: SGD and Adam, raw and "
        "standardized pixels. "
        "batch-size: what layers are worth as batches shrink. "
        "architectures: each layer in each network, one table.",
        example="evonorm reproduce --data digits --only s0-g8 --out runs",
    )
    reproduce.add_argument(
        "--experiment",
        default="report",
        type=Literal["report", "learning-rate", "batch-size", "architectures"],
        help="which one",
    )
    reproduce.add_argument("--data", default=None, type=str | None, help=field_help("data"))
    budgets = "; ".join(f"{b.name}: {b.meaning}" for b in BUDGETS.values())
    others = " ".join(
        f"Of {experiment}, {'; '.join(f'{b.name}: {b.meaning}' for b in of.values())}."
        for experiment, of in (
            ("learning-rate", ladder.LADDER_BUDGETS),
            ("batch-size", batch_sizes.BATCH_BUDGETS),
            ("architectures", architectures.ARCHITECTURE_BUDGETS),
        )
    )
    reproduce.add_argument(
        "--budget", default="quick", type=Literal[tuple(BUDGETS)], help=f"of report, {budgets}. {others}"
    )
    reproduce.add_argument("--seeds", nargs="+", type=int, default=None, metavar="SEED", help="one run for each seed")
    reproduce.add_argument("--out", default="runs", help="folder for the runs and the page report.html")
    reproduce.add_argument(
        "--workers", type=int | None, default=None, help="runs at once; default: one a core, as memory allows"
    )
    add_ray(reproduce)
    reproduce.add_argument(
        "--variant",
        default=None,
        type=Literal[(*VARIANTS, "both")] | None,
        help="of report. published: as its code ran; intended: as it describes; default: both",
    )
    ids = ", ".join(experiment.id for experiment in EXPERIMENTS)
    reproduce.add_argument("--only", nargs="+", default=None, metavar="ID", help=f"of report, only these: {ids}")
    reproduce.add_argument(
        "--layers",
        nargs="+",
        default=None,
        metavar="LAYER",
        help="which; default: of learning-rate the whole table, of batch-size "
        f"{', '.join(batch_sizes.LAYERS)}, of architectures {', '.join(architectures.LAYERS)}",
    )
    reproduce.add_argument(
        "--models",
        nargs="+",
        default=None,
        metavar="MODEL",
        help=f"of architectures: as of train; default {', '.join(architectures.MODELS)}",
    )
    reproduce.add_argument(
        "--batch_sizes",
        nargs="+",
        type=int,
        default=None,
        metavar="SIZE",
        help="of batch-size: default " + ", ".join(map(str, batch_sizes.SIZES)),
    )
    reproduce.add_argument(
        "--optimizers", nargs="+", default=None, type=Literal[ladder.OPTIMIZERS], help="of learning-rate: default both"
    )
    reproduce.add_argument(
        "--pixels", nargs="+", default=None, type=Literal[ladder.PIXELS], help="of learning-rate: default both"
    )
    reproduce.add_argument(
        "--learning_rates",
        nargs="+",
        type=float,
        default=None,
        metavar="RATE",
        help="of learning-rate: instead of two a decade from 1e-3 (sgd) or 1e-4 (adam)",
    )
    add_sinks(reproduce)
    commands.add_subcommand("reproduce", reproduce, help="an experiment, from data to page")


def run(options: Any) -> int:
    """Runs it; the exit code."""
    from rich.console import Console

    from evonorm.lab.experiments.reproduce import reproduce
    from evonorm.lab.jobs import executors
    from evonorm.lab.jobs.campaign import print_table, results_table
    from evonorm.lab.pages import page
    from evonorm.lab.training.training import check_place

    _only_for(options, ("report",), ("only", "variant"))
    _only_for(options, ("learning-rate",), ("optimizers", "pixels", "learning_rates"))
    _only_for(options, ("batch-size",), ("batch_sizes",))
    _only_for(options, ("architectures",), ("models",))
    _only_for(options, ("learning-rate", "batch-size", "architectures"), ("layers",))
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers must be at least 1: got {options.workers}")
    for seed in options.seeds or ():
        Seeds(model=seed)
    console = Console()
    out = Path(options.out)
    check_place(out)
    plan, dataset = _planned(options, out, console)
    reproduce(
        plan,
        dataset,
        out,
        console,
        lambda target: executors.make(
            target,
            workers=options.workers,
            ray=options.ray,
            cpus_per_trial=options.cpus_per_trial,
            gpus_per_trial=options.gpus_per_trial,
            gigabytes_each=executors.TRAINING_GB,
            most=len(plan.runs),
        ),
        sinks=sinks(options.wandb, options.tensorboard),
    )
    if len(plan.runs) <= 24:
        print_table(console, results_table(plan.runs, width=console.width if console.is_terminal else None))
    written = out / ("report.html" if options.experiment == "report" else f"{options.experiment}.html")
    say_unread(page.write(out, written, comparison=plan.listing.name))
    console.print(f"page: {written}", markup=False, highlight=False, soft_wrap=True)
    if any(run.status in ("stopped", "waiting") for run in plan.runs):
        console.print("stopped; repeat the command to go on", markup=False)
        return INTERRUPTED
    return FAILED if any(run.status == "failed" for run in plan.runs) else 0


def _planned(options: Any, out: Path, console: Console) -> tuple[Plan, ImageDataset]:
    from evonorm.lab.experiments import reproduce
    from evonorm.layers import table
    from evonorm.models import zoo

    if options.experiment == "report":
        experiments = reproduce.choose(options.only)
        variants = VARIANTS if options.variant in (None, "both") else (options.variant,)
        dataset = load(options.data, console)
        plan = reproduce.comparison(
            dataset,
            out,
            budget=options.budget,
            data=options.data,
            experiments=experiments,
            variants=variants,
            seeds=options.seeds or [0],
        )
        return plan, dataset
    defaults = {
        "learning-rate": table.distinct(),
        "batch-size": batch_sizes.LAYERS,
        "architectures": architectures.LAYERS,
    }
    try:
        layers = [table.get(name).name for name in options.layers or defaults[options.experiment]]
        models = [zoo.known(name) for name in options.models or ()]
    except ValueError as error:
        raise UserError(str(error)) from None
    seeds = options.seeds or [0, 1]
    if options.experiment == "batch-size":
        places = list(batch_sizes.places(layers, sizes=options.batch_sizes or batch_sizes.SIZES, seeds=seeds))
        dataset = load(options.data, console)
        return reproduce.batch_size(dataset, out, places, budget=options.budget, data=options.data), dataset
    if options.experiment == "architectures":
        of_models = list(architectures.places(layers, models=models or architectures.MODELS, seeds=seeds))
        dataset = load(options.data, console)
        return reproduce.in_architectures(dataset, out, of_models, budget=options.budget, data=options.data), dataset
    rungs = list(
        ladder.rungs(
            layers,
            optimizers=options.optimizers or ladder.OPTIMIZERS,
            pixels=options.pixels or ladder.PIXELS,
            learning_rates=options.learning_rates,
            seeds=seeds,
        )
    )
    dataset = load(options.data, console)
    return reproduce.learning_rate(dataset, out, rungs, budget=options.budget, data=options.data), dataset


def _only_for(options: Any, experiments: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if options[name] is not None and options.experiment not in experiments:
            raise UserError(
                f"--{name.replace('_', '-')} is for --experiment {' and '.join(experiments)}: "
                f"got --experiment {options.experiment}"
            )
