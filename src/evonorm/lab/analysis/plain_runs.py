"""What a folder of plain training runs holds: each task's runs on each data set, the best first; how they differ."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evonorm.lab.analysis.comparison import summarize, told
from evonorm.lab.analysis.outcomes import last, reached
from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.records.run_files import Record, Unread, flat
from evonorm.lab.training import tasks
from evonorm.lab.training.config import NOT_IDENTITY, YOUNGER

# Settings that tell runs apart, in this order, and how a name has them; what else differs follows them.
_NAMED = {
    "layer": "{}",
    "groups": "{} groups",
    "model": "{}",
    "augment": "augmented",
    "standardize": "standardized",
    "optimizer": "{}",
    "learning_rate": "rate {}",
    "batch_size": "batch {}",
    "epochs": "{} epochs",
}
# Those of them that a table has columns for.
COLUMNS = ("layer", "groups", "model", "optimizer", "learning_rate", "batch_size", "epochs")
# Seeds tell repetitions apart, not settings; a list has one task.
_NO_SETTING = (*NOT_IDENTITY, "task")
# Settings that others decide where nobody gives them: no difference of their own, unless under the same they differ.
_FOLLOWS = {
    **dict.fromkeys(("groups", "formula", "norm_eps", "backend"), ("layer",)),
    **dict.fromkeys(("dropout", "plain_norms"), ("model",)),
    **{"momentum": ("optimizer",), "step_epochs": ("schedule", "epochs"), "decay": ("optimizer", "schedule", "epochs")},
}
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam"}
# Two means differ by this many standard errors in one case of twenty where nothing differs.
TWO_SIDED = 1.96


@dataclass(frozen=True)
class Ranking:
    """The runs of one task on one data set.

    ranked: those that finished, by the goal in validation after the last epoch, the best first. apart: the others.
    telling: the fewest settings that tell the runs apart, for their names. differing: all that are not the same in
    every run, but for those that follow from others, as a layer's epsilon.
    """

    task: tasks.Task
    dataset: Mapping[str, Any]
    ranked: tuple[Record, ...]
    apart: tuple[Record, ...]
    telling: tuple[str, ...]
    differing: tuple[str, ...]

    @property
    def records(self) -> tuple[Record, ...]:
        """All, the ranked ones first."""
        return self.ranked + self.apart

    @property
    def name(self) -> str:
        """Of the data, and of the task where it is not the usual one."""
        data = str(self.dataset.get("name") or "data without a name")
        return data if self.task.name == tasks.DEFAULT else f"{data} ({self.task.name})"

    def label(self, record: Record) -> str:
        """Layer and groups, and other settings as far as they differ here; runs of one label are repetitions."""
        shown = dict.fromkeys(("layer", "groups", *self.telling))
        return ", ".join(filter(None, (_said(record, name) for name in shown))) or record.name

    def repeated(self) -> dict[str, list[float]]:
        """The goal in validation by label, of settings that finished more than once."""
        found: dict[str, list[float]] = defaultdict(list)
        for record in self.ranked:
            if (value := reached(record)) is not None:
                found[self.label(record)].append(value)
        return {label: values for label, values in found.items() if len(values) > 1}

    def margin(self, value: float) -> float:
        """How far two shares near this one lie apart by the error of counting alone, at 95 %."""
        images = max(1, int(self.dataset.get("test_images") or 1))
        return float(TWO_SIDED * (2 * value * (1 - value) / images) ** 0.5)


@dataclass(frozen=True)
class Runs:
    """A folder's runs by task and data set, the largest first."""

    rankings: tuple[Ranking, ...]
    unread: tuple[Unread, ...]

    @property
    def records(self) -> list[Record]:
        """All of them."""
        return [record for ranking in self.rankings for record in ranking.records]


def read(folder: Path) -> Runs:
    """The runs in a folder, or the one whose folder it is. Raises UserError if there is none that can be read."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; make runs with `evonorm reproduce --out {folder}`")
    found = run_files.read_all(folder)
    if not found.records:
        lost = "".join(f"; {one}" for one in found.unread)
        what = "no run that can be read" if found.unread else "no runs; make them with `evonorm reproduce --out"
        raise UserError(f"{folder} holds {what}{lost}" if found.unread else f"{folder} holds {what} {folder}`")
    alike: dict[str, list[Record]] = defaultdict(list)
    for record in found.records:
        data = [record.dataset.get(name) for name in ("fingerprint", "name")]
        alike[json.dumps([*data, tasks.of(record.config).name])].append(record)
    rankings = sorted(map(_ranking, alike.values()), key=lambda ranking: (-len(ranking.records), ranking.name))
    return Runs(tuple(rankings), found.unread)


def setting(record: Record, name: str) -> str:
    """A value of the configuration as the page writes it."""
    value = _settled(record).get(name)
    if name == "optimizer":
        return OPTIMIZERS.get(str(value), str(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _settled(record: Record) -> dict[str, Any]:
    """The configuration by dotted names, with what a setting younger than the record was then."""
    return {**YOUNGER, **flat(record.config)}


def others(record: Record, differing: Iterable[str]) -> list[str]:
    """What differs and has no column of its own, in words."""
    return [words for name in differing if name not in COLUMNS and (words := _said(record, name))]


def _said(record: Record, name: str) -> str:
    """A setting in a name: nothing where it is off or not there."""
    value = _settled(record).get(name)
    if value is None or value is False:
        return ""
    words = _NAMED.get(name, name.replace("_", " ") + ("" if value is True else " {}"))
    return words.format(setting(record, name))


def seed(record: Record) -> str:
    """The number that most of its seeds are, and those that are another."""
    seeds = {name: value for name, value in (record.config.get("seeds") or {}).items() if value is not None}
    if not seeds:
        return "–"
    usual, _ = Counter(seeds.values()).most_common(1)[0]
    rest = [f"{name} {value}" for name, value in seeds.items() if value != usual]
    return f"{usual} ({', '.join(rest)})" if rest else str(usual)


def answer(runs: Ranking) -> str:
    """The runs in a few sentences, by rule."""
    goal = runs.task.goal
    best = next((record for record in runs.ranked if reached(record) is not None), None)
    if best is None:
        article = "an" if goal.words[0] in "aeiou" else "a"
        return f"No run on {runs.name} has finished with {article} {goal.words}. {apart(runs)}".strip()
    value = reached(best) or 0.0
    count = len(runs.ranked)
    sentences = [f"Best of {count} finished runs on {runs.name}" if count > 1 else f"One finished run on {runs.name}"]
    trained = told(summarize([own] if (own := reached(best, "train")) is not None else []), goal)
    epochs = best.config.get("epochs") or len(best.metrics)
    sentences[0] += f": {runs.label(best)}, {goal.said(value)} in validation"
    sentences[0] += f" ({trained} in training)" if trained else ""
    sentences[0] += f" after {epochs} {'epoch' if epochs == 1 else 'epochs'}, seed {seed(best)}."
    if count > 1 and goal.counted:
        level = sum(value - own <= runs.margin(value) for record in runs.ranked if (own := reached(record)) is not None)
        text = (
            f"Two runs are told apart by {100 * runs.margin(value):.1f} points by the error of counting alone (95 %), "
        )
        sentences.append(text + "and seeds scatter more: ")
        sentences[-1] += f"{level} of the {count} lie that near the best." if level > 1 else "none lies that near it."
    sentences += [f"{label}: {told(summarize(values), goal)}." for label, values in list(runs.repeated().items())[:3]]
    return " ".join(filter(None, [*sentences, _without_loss(runs), apart(runs), *_further(runs, value)]))


def _without_loss(runs: Ranking) -> str:
    """Which runs finished with a validation loss that is not finite: their goal is that of no working network."""
    losses = {record.name: last(record)["val_loss"] for record in runs.ranked if "val_loss" in last(record)}
    lost = [name for name, loss in losses.items() if loss is None or not math.isfinite(loss)]
    named = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
    return f"The last validation loss is not finite in {len(lost)} of the finished runs: {named}." if lost else ""


def _further(runs: Ranking, best: float) -> list[str]:
    """Runs that have not finished and stand higher than the best that has."""
    goal = runs.task.goal
    values = [(record, value) for record in runs.apart if (value := reached(record)) is not None]
    better = sorted((one for one in values if goal.above(one[1], best)), key=lambda one: goal.order(one[1]))
    return [
        f"{runs.label(record)} had reached {goal.said(value)} by epoch {len(record.metrics)}, "
        f"{'above' if goal.better == 'higher' else 'below'} the best that finished."
        for record, value in better[:3]
    ]


def apart(runs: Ranking) -> str:
    """Which runs are not ranked, in words."""
    counts = Counter(record.status for record in runs.apart)
    if not counts:
        return ""
    told = [f"{counts[status]} {status}" for status in ("diverged", "stopped", "running", "failed") if counts[status]]
    return f"Set apart, not ranked: {', '.join(told)}."


def mixture(runs: Ranking) -> str:
    """What else than the layer differs between the runs of one list, for whoever would compare layers in it."""
    ways = [name for name in runs.differing if name not in ("layer", "groups", "formula")]
    if not ways:
        return ""
    told = [f"{_words(name)} ({_values(runs, name)})" for name in ways]
    return f"These runs differ in more than the layer: {'; '.join(told)}."


def _values(runs: Ranking, name: str) -> str:
    values = list(dict.fromkeys(setting(record, name) for record in runs.records))
    return ", ".join(values[:6]) + (f" and {len(values) - 6} more" if len(values) > 6 else "")


def _words(name: str) -> str:
    return {"model": "network"}.get(name, name.replace("_", " "))


def _ranking(found: Sequence[Record]) -> Ranking:
    task = tasks.of(found[0].config)
    ranked = [record for record in found if record.status == "finished"]
    ranked.sort(key=lambda record: (task.goal.order(reached(record)), record.name))
    rest = [record for record in found if record.status != "finished"]
    rest.sort(key=lambda record: (record.status, record.name))
    most = max(found, key=lambda record: int(record.dataset.get("test_images") or 0))
    configs = [_settled(record) for record in found]
    telling, differing = tuple(_telling(configs)), tuple(_differing(configs))
    return Ranking(task, most.dataset, tuple(ranked), tuple(rest), telling, differing)


def _telling(configs: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Settings in order, each where it tells runs apart that those before it do not."""
    keys = [""] * len(configs)
    for name in _settings(configs):
        finer = [key + json.dumps(config.get(name)) for key, config in zip(keys, configs, strict=True)]
        if len(set(finer)) > len(set(keys)):
            keys = finer
            yield name


def _differing(configs: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Settings in order that are not the same in every run, nor decided by others."""
    for name in _settings(configs):
        leaders = _FOLLOWS.get(name, ())
        led = {json.dumps([config.get(leader) for leader in leaders]) for config in configs}
        if len({json.dumps([config.get(one) for one in (*leaders, name)]) for config in configs}) > len(led):
            yield name


def _settings(configs: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    names = dict.fromkeys((*_NAMED, *(name for config in configs for name in config)))
    return (name for name in names if name not in _NO_SETTING and not name.startswith("seeds."))
