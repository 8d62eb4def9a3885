"""The command line: parse, call, print. Torch is imported where a command needs it."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evonorm import __version__

try:
    from jsonargparse import ArgumentParser
except ImportError:  # pragma: no cover - the light install
    sys.exit("evonorm: the command line needs the lab: pip install 'evonorm[lab]'")

from evonorm.lab import architectures, batch_sizes, ladder
from evonorm.lab.bench import options as bench_options
from evonorm.lab.config import Seeds, TrainConfig
from evonorm.lab.errors import NO_ROOM, UserError
from evonorm.lab.experiments import BUDGETS, EXPERIMENTS, VARIANTS

if TYPE_CHECKING:
    from rich.console import Console

    from evonorm.lab.data import ImageDataset
    from evonorm.lab.reproduce import Plan
    from evonorm.lab.sinks import Wanted

FAILED, USER_ERROR, DIVERGED, INTERRUPTED = 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 failed, 2 user's mistake, 3 diverged, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = build_parser().parse_args(_normalized(given))
        command = parsed.subcommand
        return _COMMANDS[command](parsed[command])
    except UserError as error:
        print(f"evonorm: {error}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        remedy = "; make room and repeat the command" if error.errno in NO_ROOM else ""
        print(f"evonorm: {error}{remedy}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("evonorm: interrupted", file=sys.stderr)
        return INTERRUPTED


def build_parser() -> ArgumentParser:
    """The parser of every command."""
    parser = ArgumentParser(
        prog="evonorm",
        version=__version__,
        description="Normalization-activation layers, and the lab that compares them. "
        "Start with `evonorm reproduce`, then open the page it names.",
    )
    commands = parser.add_subcommands(required=True, metavar="COMMAND")

    reproduce = ArgumentParser(
        description="Run an experiment and write its page. Finished runs are kept, stopped ones go on: repeat the "
        "command to resume. "
        "report: the report's runs, as published (its EvoNorm layers were identities) and as intended. "
        "learning-rate: every layer at its own best learning rate, with equal trials: SGD and Adam, raw and "
        "standardized pixels. "
        "batch-size: what layers are worth as batches shrink. "
        "architectures: each layer in each network, one table."
    )
    reproduce.add_argument(
        "--experiment",
        default="report",
        type=Literal["report", "learning-rate", "batch-size", "architectures"],
        help="which one",
    )
    reproduce.add_argument("--data", default=None, type=str | None, help=_field_help("data"))
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
    _add_ray(reproduce)
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
    _add_sinks(reproduce)
    commands.add_subcommand("reproduce", reproduce, help="an experiment, from data to page")

    train = ArgumentParser(
        description="Train a network once, by default Mini Inception. The run's folder below --out is named by its "
        "configuration: the same command resumes a stopped run and does not repeat a finished one. "
        "A YAML file given with --config holds the same names."
    )
    train.add_argument("--config", action="config", help="YAML file with any of the options below")
    train.add_class_arguments(TrainConfig, as_group=False)
    train.add_argument("--out", default="runs", help="folder for the run's folder")
    _add_sinks(train)
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

    sweep = ArgumentParser(
        description="Run a W&B sweep file, YAML or JSON, without a server: `evonorm sweep FILE --out FOLDER` is short "
        "for `evonorm sweep run`. Repeat the command to go on: no trial is drawn twice, none that ended is lost."
    )
    commands.add_subcommand("sweep", sweep, help="a W&B sweep file, run without a server")
    _add_sweep_commands(sweep)

    report = ArgumentParser(
        description="Write the page of a folder of runs, or of a sweep's: one self-contained HTML file."
    )
    report.add_argument("runs", help="--out of reproduce, train or sweep")
    report.add_argument("-o", "--output", default="report.html", help="the page")
    report.add_argument(
        "--comparison", default=None, type=str | None, help="which comparison file, if there are several"
    )
    report.add_argument(
        "--png",
        default=None,
        type=str | None,
        metavar="DIR",
        help="also its charts as pictures, for papers and READMEs",
    )
    commands.add_subcommand("report", report, help="the page of runs already made")

    export = ArgumentParser(
        description="Write the runs or the sweep in a folder as one table: a row a run or trial, with its "
        "configuration, final and best metrics; --metrics: a row an epoch. Names and types: docs/export.md."
    )
    export.add_argument("folder", metavar="FOLDER", help="--out of train, reproduce or sweep, or one run's folder")
    export.add_argument("--csv", default=None, type=str | None, metavar="FILE", help="as CSV")
    export.add_argument("--parquet", default=None, type=str | None, metavar="FILE", help="as Parquet (needs pyarrow)")
    export.add_argument("--metrics", action="store_true", help="a row an epoch, of a program's trial a row a report")
    commands.add_subcommand("export", export, help="runs or a sweep as one table")

    bench = ArgumentParser(
        description="Measure the layers beside their rivals: time, times faster than torch's BatchNorm with ReLU and "
        "than timm, time over what memory alone takes, tensors saved for backward, peak memory. One process, "
        "implementations in turn, medians. Ours are checked against float64 first: what is wrong shows no speed, and "
        "the exit code is 1. Ctrl-C prints what was measured so far. "
        "Start with `evonorm bench`; then --preset mini-inception, --shape 32,64,56,56, --network."
    )
    bench_options.add_arguments(bench)
    commands.add_subcommand("bench", bench, help="how fast the layers are here")

    layers = ArgumentParser(description="Print the table of layers: name, formula, parameters, source.")
    commands.add_subcommand("layers", layers, help="the table of layers")

    plan = ArgumentParser(
        description="Print what putting a layer into a model would do: every normalization, what follows it, whether "
        "it is replaced and why. In Python: evonorm.convert(model, layer)."
    )
    plan.add_argument("model", help="torchvision:NAME or timm:NAME, as in torchvision:resnet50")
    plan.add_argument("layer", help="a layer of `evonorm layers`")
    plan.add_argument("--groups", type=int | None, default=None, help="default: 32, or a GroupNorm's own")
    plan.add_argument("--group_size", type=int | None, default=None, help="channels a group, in the place of --groups")
    plan.add_argument(
        "--without_activation",
        default="keep",
        type=Literal["keep", "affine", "replace"],
        help="at norms that no activation follows: keep them, put the layer there with its activation off, or whole",
    )
    plan.add_argument("--json", default=None, type=str | None, metavar="FILE", help="writes the plan there too")
    commands.add_subcommand("plan", plan, help="what putting a layer into a known model would do")
    return parser


def _add_sweep_commands(sweep: ArgumentParser) -> None:
    commands = sweep.add_subcommands(required=True, metavar="COMMAND")

    run = ArgumentParser(
        description="Run the trials of a sweep file: of its `program`, or, without one, of this lab's training, whose "
        "options (`evonorm train --help`) the file's parameters name."
    )
    run.add_argument("file", metavar="FILE", help="W&B sweep configuration, YAML or JSON")
    run.add_argument("--out", required=True, metavar="FOLDER", help="folder of the sweep and its trials")
    run.add_argument(
        "--workers", type=int | None, default=None, help="trials at once; default: one a core, as memory allows"
    )
    _add_ray(run)
    run.add_argument("--seed", type=int | None, default=None, help="of the draws; default: 0, or what the folder has")
    run.add_argument("--trials", type=int | None, default=None, help="at most so many trials, earlier ones counted")
    run.add_argument("--data", default=None, type=str | None, help=_field_help("data"))
    run.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="options of training for every trial, in the place of the file's, as in --set epochs=3 train_images=1000",
    )
    _add_sinks(run)
    commands.add_subcommand("run", run, help="run a sweep file, or go on with it")

    status = ArgumentParser(description="Where a sweep stands: how many trials, which is best, which failed and why.")
    status.add_argument("folder", metavar="FOLDER", help="--out of the sweep")
    commands.add_subcommand("status", status, help="where a sweep stands")

    best = ArgumentParser(description="The parameters of a sweep's best trial, as JSON.")
    best.add_argument("folder", metavar="FOLDER", help="--out of the sweep")
    best.add_argument(
        "--as_args", action="store_true", help="as options of a command: --learning_rate=0.01 --epochs=10"
    )
    commands.add_subcommand("best", best, help="the best trial's parameters")


def _add_ray(command: ArgumentParser) -> None:
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


def _add_sinks(command: ArgumentParser) -> None:
    command.add_argument(
        "--wandb",
        default=None,
        type=Literal["offline", "online"] | None,
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


def _field_help(name: str) -> str:
    """What TrainConfig's docstring says of a field."""
    import docstring_parser

    parameters = docstring_parser.parse(TrainConfig.__doc__ or "").params
    return next((p.description or "" for p in parameters if p.arg_name == name), "").replace("\n", " ")


def _normalized(arguments: list[str]) -> list[str]:
    """--train-images as --train_images, and a switch alone, --augment, as --augment true."""
    hints = typing.get_type_hints(TrainConfig)
    switches = {f"--{field.name}" for field in dataclasses.fields(TrainConfig) if hints[field.name] is bool}
    if arguments[:1] == ["sweep"] and arguments[1:] and arguments[1] not in _SWEEP_WORDS:
        arguments = ["sweep", "run", *arguments[1:]]
    normalized = []
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            argument = name.replace("-", "_").replace("__", "--", 1) + equals + value
        normalized.append(argument)
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        if argument in switches and following.lower() not in ("true", "false"):
            normalized.append("true")
    return normalized


def _train(options: Any) -> int:
    from rich.console import Console

    from evonorm.lab import replicas
    from evonorm.lab.progress import shown
    from evonorm.lab.sinks import Recording, Wanted
    from evonorm.lab.training import train

    values = dict(options.as_dict())
    values.pop("config", None)
    out = Path(values.pop("out"))
    wanted = _sinks(values.pop("wandb"), values.pop("tensorboard"), job_type="train")
    profile_steps, profile_json = values.pop("profile"), values.pop("profile_json")
    config = TrainConfig(**(values | {"seeds": Seeds(**values["seeds"])}))
    if profile_json is not None and profile_steps is None:
        raise UserError(f"--profile-json {profile_json} needs --profile")
    with replicas.launched(config.device) as group:
        console = Console(quiet=not group.first)
        try:
            dataset = group.in_turn(lambda: _load(config.data, console))
            if profile_steps is not None:
                return _profile(config, dataset, console, profile_steps, profile_json)
            sinks = wanted if group.first else Wanted()
            with shown(console) as watch, Recording(sinks, out, watch) as recording:
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


def _profile(config: TrainConfig, dataset: ImageDataset, console: Console, steps: int, file: str | None) -> int:
    from evonorm.lab import records
    from evonorm.lab.profile import profile
    from evonorm.lab.progress import Plain

    result = profile(config, dataset, steps=steps, watch=Plain(console))
    console.print(result.table())
    console.print(result.notes(), markup=False, highlight=False, soft_wrap=True)
    if file is not None:
        records.write_json(Path(file), result.as_json())
        console.print(f"profile: {file}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _reproduce(options: Any) -> int:
    from rich.console import Console

    from evonorm.lab.campaign import results_table
    from evonorm.lab.report import page
    from evonorm.lab.reproduce import reproduce
    from evonorm.lab.sweep import executors

    _only_for(options, ("report",), ("only", "variant"))
    _only_for(options, ("learning-rate",), ("optimizers", "pixels", "learning_rates"))
    _only_for(options, ("batch-size",), ("batch_sizes",))
    _only_for(options, ("architectures",), ("models",))
    _only_for(options, ("learning-rate", "batch-size", "architectures"), ("layers",))
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers must be at least 1: got {options.workers}")
    console = Console()
    out = Path(options.out)
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
        sinks=_sinks(options.wandb, options.tensorboard),
    )
    if len(plan.runs) <= 24:
        console.print(results_table(plan.runs))
    written = out / ("report.html" if options.experiment == "report" else f"{options.experiment}.html")
    page.write(out, written, comparison=plan.listing.name)
    console.print(f"page: {written}", markup=False, highlight=False, soft_wrap=True)
    if any(run.status in ("stopped", "waiting") for run in plan.runs):
        console.print("stopped; repeat the command to go on", markup=False)
        return INTERRUPTED
    return FAILED if any(run.status == "failed" for run in plan.runs) else 0


def _planned(options: Any, out: Path, console: Console) -> tuple[Plan, ImageDataset]:
    from evonorm.lab import reproduce
    from evonorm.layers import table
    from evonorm.models import zoo

    if options.experiment == "report":
        experiments = reproduce.choose(options.only)
        variants = VARIANTS if options.variant in (None, "both") else (options.variant,)
        dataset = _load(options.data, console)
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
        dataset = _load(options.data, console)
        return reproduce.batch_size(dataset, out, places, budget=options.budget, data=options.data), dataset
    if options.experiment == "architectures":
        of_models = list(architectures.places(layers, models=models or architectures.MODELS, seeds=seeds))
        dataset = _load(options.data, console)
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
    dataset = _load(options.data, console)
    return reproduce.learning_rate(dataset, out, rungs, budget=options.budget, data=options.data), dataset


def _only_for(options: Any, experiments: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if options[name] is not None and options.experiment not in experiments:
            raise UserError(
                f"--{name.replace('_', '-')} is for --experiment {' and '.join(experiments)}: "
                f"got --experiment {options.experiment}"
            )


def _sweep(options: Any) -> int:
    command = options.subcommand
    return {"run": _sweep_run, "status": _sweep_status, "best": _sweep_best}[command](options[command])


def _sweep_run(options: Any) -> int:
    from rich.console import Console

    from evonorm.lab.sweep import command, view

    console = Console()
    sinks = _sinks(options.wandb, options.tensorboard)
    chosen = command.read(Path(options.file), data=options.data, settings=options.set)
    target = command.target(chosen, Path(options.file), load=lambda source: _load(source, console), sinks=sinks)
    with view.shown(console) as watch:
        result = command.run(
            chosen,
            target,
            Path(options.out),
            workers=options.workers,
            ray=options.ray,
            cpus_per_trial=options.cpus_per_trial,
            gpus_per_trial=options.gpus_per_trial,
            seed=options.seed,
            trials=options.trials,
            view=watch,
        )
    _sweep_page(result.folder, console)
    if result.stopped:
        console.print("stopped; repeat the command to go on", markup=False)
        return INTERRUPTED
    return FAILED if any(trial.status == "failed" for trial in result.trials) else 0


def _sweep_page(folder: Path, console: Console) -> None:
    """Writes the page beside the trials; if it cannot be, the sweep has ended well all the same."""
    from evonorm.lab.report import page

    try:
        page.write(folder, folder / "report.html")
    except UserError as error:
        console.print(f"no page: {error}", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(f"page: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def _sweep_status(options: Any) -> int:
    from evonorm.lab.sweep import command

    print(command.status(Path(options.folder)))
    return 0


def _sweep_best(options: Any) -> int:
    from evonorm.lab.sweep import command

    print(command.best(Path(options.folder), as_args=options.as_args))
    return 0


def _report(options: Any) -> int:
    from evonorm.lab.report import page

    page.write(Path(options.runs), Path(options.output), comparison=options.comparison)
    print(options.output)
    if options.png is not None:
        for path in page.draw(Path(options.runs), Path(options.png), comparison=options.comparison):
            print(path)
    return 0


def _export(options: Any) -> int:
    from evonorm.lab.export import export

    files = {name: Path(value) if (value := getattr(options, name)) else None for name in ("csv", "parquet")}
    table = export(Path(options.folder), csv=files["csv"], parquet=files["parquet"], metrics=options.metrics)
    for file in filter(None, files.values()):
        print(f"{file}: {len(table.rows)} rows, {len(table.columns)} columns")
    return 0


def _bench(options: Any) -> int:
    asked = bench_options.from_arguments(options)

    from evonorm.lab.bench.run import bench
    from evonorm.lab.bench.tables import make_console

    outcome = bench(asked, make_console())
    return INTERRUPTED if outcome.interrupted else FAILED if outcome.red else 0


def _layers(options: Any) -> int:
    from evonorm.layers.table import TABLE

    width = max(len(row.name) for row in TABLE)
    for row in TABLE:
        own = ", ".join([*(("weight", "bias") if row.affine else ()), *row.parameters, *row.running]) or "none"
        print(f"{row.name:{width}}  y = {row.text}")
        print(f"{'':{width}}  parameters: {own}. Source: {row.source}")
    print("\nweight, v and running_var start at 1; bias, tau and running_mean at 0; each has one value a channel")
    return 0


def _plan(options: Any) -> int:
    from evonorm.lab.planning import plan_of

    values = dict(options.as_dict())
    file = values.pop("json")
    made = plan_of(values.pop("model"), values.pop("layer"), **values)
    print(made)
    if file is not None:
        Path(file).write_text(made.to_json() + "\n", encoding="utf-8")
        print(f"plan: {file}")
    return 0


def _sinks(wandb: Literal["offline", "online"] | None, tensorboard: str | None, **membership: Any) -> Wanted:
    from evonorm.lab.sinks import Wanted

    return Wanted(wandb, tensorboard).of(**membership)


def _load(source: str | None, console: Console) -> ImageDataset:
    """The data, and loudly what a reader of results made with it must know."""
    from evonorm.lab.data import load

    dataset = load(source, say=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
    if dataset.notice:
        console.rule(style="yellow")
        console.print(f"NOTE: {dataset.notice}", style="bold yellow", markup=False)
        console.rule(style="yellow")
    return dataset


_COMMANDS = {
    "reproduce": _reproduce,
    "train": _train,
    "sweep": _sweep,
    "report": _report,
    "export": _export,
    "bench": _bench,
    "layers": _layers,
    "plan": _plan,
}
_SWEEP_WORDS = ("run", "status", "best", "-h", "--help")
