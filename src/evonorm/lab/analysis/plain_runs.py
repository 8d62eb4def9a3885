"""What a folder of plain training runs holds: the runs of each data set, the best first, and how they differ."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evonorm.lab.analysis.comparison import percent, summarize
from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.records.run_files import Record, Unread
from evonorm.lab.training.config import YOUNGER
from evonorm.lab.training.sinks import flat

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
# Where the data lies and how the machine computes it; seeds tell repetitions apart, not settings.
_NO_SETTING = ("data", "device")
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
class Task:
    """The runs on one data set.

    ranked: those that finished, by validation accuracy after the last epoch, the best first. apart: the others.
    telling: the fewest settings that tell the runs apart, for their names. differing: all that are not the same in
    every run, but for those that follow from others, as a layer's epsilon.
    """

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
        """Of the data."""
        return str(self.dataset.get("name") or "data without a name")

    def label(self, record: Record) -> str:
        """Layer and groups, and other settings as far as they differ here; runs of one label are repetitions."""
        shown = dict.fromkeys(("layer", "groups", *self.telling))
        return ", ".join(filter(None, (_said(record, name) for name in shown))) or record.name

    def repeated(self) -> dict[str, list[float]]:
        """Validation accuracies by label, of settings that finished more than once."""
        found: dict[str, list[float]] = defaultdict(list)
        for record in self.ranked:
            if (value := accuracy(record)) is not None:
                found[self.label(record)].append(value)
        return {label: values for label, values in found.items() if len(values) > 1}

    def margin(self, value: float) -> float:
        """How far two accuracies near this one lie apart by the error of counting alone, at 95 %."""
        images = max(1, int(self.dataset.get("test_images") or 1))
        return float(TWO_SIDED * (2 * value * (1 - value) / images) ** 0.5)


@dataclass(frozen=True)
class Runs:
    """A folder's runs by data set, the largest first."""

    tasks: tuple[Task, ...]
    unread: tuple[Unread, ...]

    @property
    def records(self) -> list[Record]:
        """All of them."""
        return [record for task in self.tasks for record in task.records]


def read(folder: Path) -> Runs:
    """The runs in a folder, or the one whose folder it is. Raises UserError if there is none that can be read."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; make runs with `evonorm reproduce --out {folder}`")
    found = run_files.read_all(folder)
    if not found.records:
        lost = "".join(f"; {one}" for one in found.unread)
        what = "no run that can be read" if found.unread else "no runs; make them with `evonorm reproduce --out"
        raise UserError(f"{folder} holds {what}{lost}" if found.unread else f"{folder} holds {what} {folder}`")
    by_data: dict[str, list[Record]] = defaultdict(list)
    for record in found.records:
        by_data[json.dumps([record.dataset.get(name) for name in ("fingerprint", "name")])].append(record)
    tasks = sorted((_task(of_data) for of_data in by_data.values()), key=lambda task: (-len(task.records), task.name))
    return Runs(tuple(tasks), found.unread)


def accuracy(record: Record, split: str = "val") -> float | None:
    """After the last epoch that was finished; None where there is none, or it was not finite."""
    value = last(record).get(f"{split}_accuracy")
    return None if value is None else float(value)


def last(record: Record) -> Mapping[str, Any]:
    """The last epoch that was finished."""
    return record.metrics[-1] if record.metrics else record.summary.get("last") or {}


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


def answer(task: Task) -> str:
    """The task in a few sentences, by rule."""
    best = next((record for record in task.ranked if accuracy(record) is not None), None)
    if best is None:
        return f"No run on {task.name} has finished with an accuracy. {apart(task)}".strip()
    value = accuracy(best) or 0.0
    count = len(task.ranked)
    sentences = [f"Best of {count} finished runs on {task.name}" if count > 1 else f"One finished run on {task.name}"]
    trained = percent(summarize([own] if (own := accuracy(best, "train")) is not None else []), " %")
    epochs = best.config.get("epochs") or len(best.metrics)
    sentences[0] += f": {task.label(best)}, {100 * value:.1f} % in validation"
    sentences[0] += f" ({trained} in training)" if trained else ""
    sentences[0] += f" after {epochs} {'epoch' if epochs == 1 else 'epochs'}, seed {seed(best)}."
    if count > 1:
        level = sum(
            value - own <= task.margin(value) for record in task.ranked if (own := accuracy(record)) is not None
        )
        text = (
            f"Two runs are told apart by {100 * task.margin(value):.1f} points by the error of counting alone (95 %), "
        )
        sentences.append(text + "and seeds scatter more: ")
        sentences[-1] += f"{level} of the {count} lie that near the best." if level > 1 else "none lies that near it."
    sentences += [
        f"{label}: {percent(summarize(values), ' %')}." for label, values in list(task.repeated().items())[:3]
    ]
    return " ".join(filter(None, [*sentences, _without_loss(task), apart(task), *_further(task, value)]))


def _without_loss(task: Task) -> str:
    """Which runs finished with a validation loss that is not finite: their accuracy is that of no working network."""
    losses = {record.name: last(record)["val_loss"] for record in task.ranked if "val_loss" in last(record)}
    lost = [name for name, loss in losses.items() if loss is None or not math.isfinite(loss)]
    named = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
    return f"The last validation loss is not finite in {len(lost)} of the finished runs: {named}." if lost else ""


def _further(task: Task, best: float) -> list[str]:
    """Runs that have not finished and stand higher than the best that has."""
    reached = {record.name: (accuracy(record) or 0.0) for record in task.apart}
    higher = sorted((record for record in task.apart if reached[record.name] > best), key=lambda r: -reached[r.name])
    return [
        f"{task.label(record)} had reached {100 * reached[record.name]:.1f} % by epoch {len(record.metrics)}, "
        "above the best that finished."
        for record in higher[:3]
    ]


def apart(task: Task) -> str:
    """Which runs are not ranked, in words."""
    counts = Counter(record.status for record in task.apart)
    if not counts:
        return ""
    told = [f"{counts[status]} {status}" for status in ("diverged", "stopped", "running", "failed") if counts[status]]
    return f"Set apart, not ranked: {', '.join(told)}."


def mixture(task: Task) -> str:
    """What else than the layer differs between the runs of one list, for whoever would compare layers in it."""
    ways = [name for name in task.differing if name not in ("layer", "groups", "formula")]
    if not ways:
        return ""
    told = [f"{_words(name)} ({_values(task, name)})" for name in ways]
    return f"These runs differ in more than the layer: {'; '.join(told)}."


def _values(task: Task, name: str) -> str:
    values = list(dict.fromkeys(setting(record, name) for record in task.records))
    return ", ".join(values[:6]) + (f" and {len(values) - 6} more" if len(values) > 6 else "")


def _words(name: str) -> str:
    return {"model": "network"}.get(name, name.replace("_", " "))


def _task(found: Sequence[Record]) -> Task:
    ranked = [record for record in found if record.status == "finished"]
    ranked.sort(key=lambda record: (-(-1.0 if (own := accuracy(record)) is None else own), record.name))
    rest = [record for record in found if record.status != "finished"]
    rest.sort(key=lambda record: (record.status, record.name))
    most = max(found, key=lambda record: int(record.dataset.get("test_images") or 0))
    configs = [_settled(record) for record in found]
    return Task(most.dataset, tuple(ranked), tuple(rest), tuple(_telling(configs)), tuple(_differing(configs)))


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
