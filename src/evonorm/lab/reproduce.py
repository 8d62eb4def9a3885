"""The report's comparison: its runs in both variants, each trained once, listed in one comparison file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from evonorm.lab import records
from evonorm.lab.config import TrainConfig
from evonorm.lab.data import ImageDataset
from evonorm.lab.errors import UserError
from evonorm.lab.experiments import BUDGETS, EXPERIMENTS, VARIANTS, Budget, Experiment, Variant, train_config
from evonorm.lab.progress import Bar, Plain, Watch, live
from evonorm.lab.training import run_folder, train


@dataclass
class PlannedRun:
    """One run folder and the entries of the comparison that it serves."""

    name: str
    config: TrainConfig
    entries: list[dict[str, Any]] = field(default_factory=list)
    status: str = "waiting"
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def serves(self) -> str:
        """The experiments it stands for, a word each."""
        served: dict[str, set[str]] = {}
        for entry in self.entries:
            served.setdefault(entry["experiment"], set()).add(entry["variant"])
        return ", ".join(
            f"{id}{'' if len(variants) == 2 else f' ({min(variants)})'}" for id, variants in served.items()
        )


def choose(only: Sequence[str] | None) -> tuple[Experiment, ...]:
    """The experiments of these ids, or all. Raises UserError naming an id that is none."""
    if not only:
        return EXPERIMENTS
    by_id = {experiment.id: experiment for experiment in EXPERIMENTS}
    unknown = [id for id in only if id not in by_id]
    if unknown:
        raise UserError(f"no experiment is called {unknown[0]!r}; choose from {', '.join(by_id)}")
    return tuple(by_id[id] for id in dict.fromkeys(only))


def plan(
    dataset: ImageDataset,
    budget: Budget,
    out: Path,
    *,
    data: str | None,
    experiments: Iterable[Experiment],
    variants: Sequence[Variant] = VARIANTS,
    seeds: Sequence[int] = (0,),
) -> list[PlannedRun]:
    """Every run that these experiments need, each once: entries with the same configuration share it."""
    train_images, test_images = budget_images(dataset, budget)
    runs: dict[str, PlannedRun] = {}
    for seed in seeds:
        for experiment in experiments:
            for variant in variants:
                config = train_config(
                    experiment,
                    variant,
                    budget,
                    seed=seed,
                    data=data,
                    train_images=train_images,
                    test_images=test_images,
                )
                name = run_folder(config, dataset, out).name
                entry = {"experiment": experiment.id, "variant": variant, "seed": seed, "run": name}
                runs.setdefault(name, PlannedRun(name, config)).entries.append(entry)
    return list(runs.values())


def budget_images(dataset: ImageDataset, budget: Budget) -> tuple[int, int]:
    """Training and test images that the budget leaves of the data."""
    return (
        min(len(dataset.train_labels), budget.train_images or len(dataset.train_labels)),
        min(len(dataset.test_labels), budget.test_images or len(dataset.test_labels)),
    )


def reproduce(
    dataset: ImageDataset,
    out: Path,
    console: Console,
    *,
    budget: str = "quick",
    data: str | None = None,
    only: Sequence[str] | None = None,
    variants: Sequence[Variant] = VARIANTS,
    seeds: Sequence[int] = (0,),
) -> tuple[list[PlannedRun], Path]:
    """Trains what is not trained yet and returns the runs and the comparison file.

    Finished runs are kept, stopped ones go on. A run that fails does not stop the rest; Ctrl-C stops all, with a
    checkpoint: a PlannedRun's status then is `stopped` or `waiting`.
    """
    chosen = BUDGETS[budget]
    runs = plan(dataset, chosen, out, data=data, experiments=choose(only), variants=variants, seeds=seeds)
    comparison = write_comparison(out, dataset, chosen, runs)
    board = Board(console, runs, chosen)
    with live(console, board):
        for run in runs:
            board.start(run)
            try:
                record = train(run.config, dataset, out, watch=board)
            except KeyboardInterrupt:
                # It may have come while the run's last epoch was validated: then the run is finished.
                ended = (out / run.name / "summary.json").exists()
                run.status = records.read(out / run.name).status if ended else "waiting"
                break
            except Exception as error:
                # One failed run does not stop the rest; its summary.json holds the error.
                run.status = "failed"
                board.say(f"{run.name} failed: {error}")
                continue
            run.status = record.status
            run.metrics = record.summary.get("last") or {}
            if record.status == "stopped":
                break
    write_comparison(out, dataset, chosen, runs)
    return runs, comparison


def write_comparison(out: Path, dataset: ImageDataset, budget: Budget, runs: Iterable[PlannedRun]) -> Path:
    """Writes, or adds to, comparison-<budget>-<data>.json, which says which run stands for which experiment."""
    path = out / f"comparison-{budget.name}-{dataset.fingerprint}.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        entries = {_key(entry): entry for entry in records.read_json(path)["entries"]} if path.exists() else {}
    except (OSError, KeyError, TypeError) as error:
        raise UserError(f"cannot use {path}: {error}; choose another --out, or delete the file") from error
    entries |= {_key(entry): entry for run in runs for entry in run.entries}
    train_images, test_images = budget_images(dataset, budget)
    content = {
        "schema": 1,
        "updated": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "budget": asdict(budget),
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "notice": dataset.notice,
            "classes": list(dataset.classes),
            "train_images": train_images,
            "test_images": test_images,
        },
        "entries": list(entries.values()),
    }
    records.write_json(path, content)
    return path


def _key(entry: Mapping[str, Any]) -> str:
    return json.dumps([entry["experiment"], entry["variant"], entry["seed"]])


class Board:
    """A live table of all runs, above the bar of the one at work and a bar of the whole."""

    def __init__(self, console: Console, runs: Sequence[PlannedRun], budget: Budget) -> None:
        self._runs = runs
        self._bar = Bar(console) if console.is_terminal else None
        self._inner: Watch = self._bar or Plain(console)
        self._current = runs[0]
        self._said: set[str] = set()
        self._steps, self._done = 1, 0
        self._whole = (
            self._bar.progress.add_task(f"all {len(runs)} runs, {budget.name}", total=None, figures="")
            if self._bar
            else None
        )

    def start(self, run: PlannedRun) -> None:
        """`run` is the one at work from now on."""
        self._current = run
        self._steps, self._done = 1, 0
        run.status = "running"
        number = self._runs.index(run) + 1
        if self._bar is None:
            self.say(f"[{number}/{len(self._runs)}] {run.serves()}")

    def begin(self, name: str, *, steps: int, done: int) -> None:
        """See Watch."""
        self._steps, self._done = steps, done
        self._inner.begin(name, steps=steps, done=done)

    def step(self, *, epoch: int, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """See Watch."""
        self._done += 1
        self._inner.step(epoch=epoch, step=step, loss=loss, accuracy=accuracy, images_per_second=images_per_second)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """See Watch."""
        self._current.metrics = metrics
        if self._bar is None:
            self._inner.epoch(metrics)

    def say(self, text: str) -> None:
        """See Watch; what every run says of the machine is said once."""
        if text not in self._said:
            self._said.add(text)
            self._inner.say(text)

    def __rich__(self) -> RenderableType:
        table = results_table(self._runs)
        if self._bar is None or self._whole is None:
            return table
        behind = sum(run.status not in ("waiting", "running") for run in self._runs)
        part = self._done / self._steps if self._current.status == "running" else 0.0
        self._bar.progress.update(self._whole, total=len(self._runs), completed=behind + part)
        return Group(table, self._bar.progress)


def results_table(runs: Iterable[PlannedRun]) -> Table:
    """The runs and where each stands."""
    table = Table("run", "stands for", "status", "epoch", "train acc.", "val acc.", "val loss")
    for column in table.columns[3:]:
        column.justify = "right"
    for run in runs:
        figures = [run.metrics.get(key) for key in ("train_accuracy", "val_accuracy", "val_loss")]
        cells = ["" if figure is None else f"{figure:.3f}" for figure in figures]
        table.add_row(run.name, run.serves(), run.status, str(run.metrics.get("epoch", "")), *cells)
    return table
