"""What a sweep is of, in words: its file, data and network, and what its metric means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from evonorm.lab.analysis.conditions import distinct
from evonorm.lab.analysis.swept import Swept, number
from evonorm.lab.records.run_files import Record, flat
from evonorm.lab.sweep.driver import best_by
from evonorm.lab.training import tasks
from evonorm.lab.training.config import REPORT_MODEL

# What a metric of our training is measured on; others say it by their name.
_ON = {"train": "the training images", "val": "the validation images"}


def subject(swept: Swept, made: Sequence[Record]) -> str:
    """The sweep's file, and what its trials ran: data and network, or a program."""
    content = swept.content
    parts = [f"Sweep file: {content['file']}"] if content.get("file") else []
    runs = content.get("runs", {})
    if training(swept) is None:
        ran = next((runs[name] for name in ("program", "command", "function") if runs.get(name)), None)
        words = " ".join(map(str, ran)) if isinstance(ran, list) else str(ran)
        return ". ".join([*parts, f"Every trial runs {words}"] if ran else parts) + "." * bool(ran or parts)
    parts.append(f"Data: {data(made) or 'not known, since no trial has begun a run'}")
    networks = distinct(record.config.get("model") for record in made) or str(_constant(swept, "model", REPORT_MODEL))
    layers = distinct(record.config.get("layer") for record in made) or str(_constant(swept, "layer", ""))
    parts.append(f"Network: {networks}" + (f", with {layers}" if layers else ""))
    return ". ".join(parts) + "."


def data(made: Iterable[Record]) -> str:
    """Each data set that the runs are on, with its images; empty where there is none."""
    told: dict[str, list[tuple[int, int]]] = {}
    for record in made:
        found = record.dataset
        if found.get("name"):
            images = (int(found.get("train_images") or 0), int(found.get("test_images") or 0))
            told.setdefault(str(found["name"]), []).append(images)
    spans = {name: [_span(one) for one in zip(*counts, strict=True)] for name, counts in told.items()}
    return "; ".join(f"{name}: {train} training and {test} validation images" for name, (train, test) in spans.items())


def notices(made: Iterable[Record]) -> list[str]:
    """What readers must know of the data, each once."""
    return list(dict.fromkeys(str(record.dataset["notice"]) for record in made if record.dataset.get("notice")))


def meaning(swept: Swept) -> str:
    """What the metric is measured on, where it is one of our training's; Keras's names hide that."""
    if swept.metric is None or training(swept) is None:
        return ""
    name = swept.metric.name
    ours = task(swept).aliases.get(name, name)
    split = ours.split("_")[0]
    if split not in _ON:
        return ""
    text = f"{name} is measured on {_ON[split]}"
    if split == "val":
        return f"{text}, once an epoch."
    kind = ours.removeprefix("train_")
    text += f" while they are trained on, not on validation images: it is the training {kind}"
    text += ", as in the report's sweep" if (name, swept.metric.goal) == ("accuracy", "maximize") else ""
    best = best_by(swept.metric, swept.trials)
    other = best.metrics.get(f"val_{kind}") if best is not None else None
    if best is None or not isinstance(other, int | float):
        return f"{text}."
    return f"{text}. The best trial, {best.number}, ends with a validation {kind} of {number(float(other))}."


def task(swept: Swept) -> tasks.Task:
    """What the trials' networks are trained for; where that varies, by the default."""
    return tasks.of({**(training(swept) or {}), **swept.constants})


def training(swept: Swept) -> dict[str, object] | None:
    """The options of this lab's training that hold for every trial; None where a program ran."""
    found = swept.content.get("runs", {}).get("training")
    return found if isinstance(found, dict) else None


def _constant(swept: Swept, name: str, default: str) -> object:
    return {**flat(training(swept) or {}), **swept.constants}.get(name, default)


def _span(counts: Iterable[int]) -> str:
    ordered = sorted(set(counts))
    return f"{ordered[0]:,}" + (f" to {ordered[-1]:,}" if len(ordered) > 1 else "")
