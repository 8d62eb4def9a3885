"""What a run is trained for: a task's data, metrics, goal and options. Nothing else in the lab knows a metric by name.

A new task is one file that calls `add`: a row of Metrics, what loads its data, and a `work.Work`, which makes the
networks, their steps and their validation. The loop, records, sinks, tables and pages read the row. Nothing here needs
torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evonorm.lab import python_file
from evonorm.lab.errors import UserError
from evonorm.lab.training.synthesis.options import SynthesisOptions
from evonorm.lab.training.tasks.metrics import ACCURACY as ACCURACY
from evonorm.lab.training.tasks.metrics import LOSS as LOSS
from evonorm.lab.training.tasks.metrics import SPLITS as SPLITS
from evonorm.lab.training.tasks.metrics import Metric as Metric

if TYPE_CHECKING:
    from evonorm.lab.data.sets import Dataset, Say
    from evonorm.lab.training.tasks.work import Work

DEFAULT, DETECTION, SYNTHESIS = "classification", "detection", "synthesis"
# What an epoch holds besides its metrics, whatever the task.
PACE = ("learning_rate", "images_per_second", "seconds")


def _images(source: str | None, say: Say) -> Dataset:
    from evonorm.lab.data import sets

    return sets.load(source, say=say)


def _no_chance(dataset: Mapping[str, Any]) -> float:
    return math.nan


@dataclass(frozen=True)
class Task:
    """A row of the table of tasks.

    metrics: the loss first. goal: the metric of validation that runs are ranked by. work: the class of its Work, or,
    so that torch is imported where it is used, a function that imports it. chance: the goal's value of guessing, given
    a record's data; NaN where there is none. aliases: what others call metrics. load: the data that --data names, by
    default images of classes; it raises UserError naming what is wrong. options: a frozen dataclass of what is the
    task's own in a configuration, each field with a default and a line in the docstring's Args. replicas: several
    processes may train a run of it together.
    """

    name: str
    metrics: tuple[Metric, ...]
    goal: Metric
    work: type[Work] | Callable[[], type[Work]]
    chance: Callable[[Mapping[str, Any]], float] = _no_chance
    aliases: Mapping[str, str] = field(default_factory=dict)
    load: Callable[[str | None, Say], Dataset] = _images
    options: type[Any] | None = None
    replicas: bool = True

    @property
    def work_class(self) -> type[Work]:
        """The class of its Work."""
        return self.work if isinstance(self.work, type) else self.work()

    def measured_on(self, split: str) -> tuple[Metric, ...]:
        """The metrics of the training ("train") or the validation images ("val"), in their order."""
        return tuple(metric for metric in self.metrics if split in metric.splits)

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of all that an epoch holds, but its number."""
        return (*(metric.key(split) for split in SPLITS for metric in self.measured_on(split)), *PACE)

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        source = _SOURCES.get(self.name)
        return super().__reduce_ex__(protocol) if source is None else (_again, (source, self.name))


def _classification() -> type[Work]:
    from evonorm.lab.training.tasks.classification import Classification

    return Classification


def _detection() -> type[Work]:
    from evonorm.lab.training.tasks.detection import Detection

    return Detection


def _pictures_with_objects(source: str | None, say: Say) -> Dataset:
    from evonorm.lab.data import detection

    return detection.load(source, say=say)


def _synthesis() -> type[Work]:
    from evonorm.lab.training.tasks.synthesis import Synthesis

    return Synthesis


_TASKS: dict[str, Task] = {}
# Of those that a user's own file added: the file, which is run where the task has travelled to.
_SOURCES: dict[str, python_file.Source] = {}


def add(task: Task) -> Task:
    """Makes a task known by its name. Raises UserError if the name is another's, or the goal is none of its metrics."""
    if task.goal not in task.measured_on("val") or task.metrics[0].name != LOSS.name:
        raise UserError(
            f"task {task.name!r}: metrics must begin with the loss and hold the goal {task.goal.name!r}, of validation"
        )
    source, before = python_file.running(), _SOURCES.get(task.name)
    again = source is not None and before is not None and source.name == before.name
    if not again and _TASKS.get(task.name, task) != task:
        raise UserError(f"there is a task {task.name!r} already; choose another name")
    _TASKS[task.name] = task
    if source is not None:
        _SOURCES[task.name] = source
    return task


def added() -> tuple[Task, ...]:
    """What is known here besides this file's own, to be added in a worker process, which knows what it is given."""
    return tuple(task for task in _TASKS.values() if task.name not in _OWN)


def find(name: str) -> Task:
    """The task of this name, or the one that this Python file adds, which is run. Raises UserError if there is none."""
    if not name.endswith(".py"):
        return get(name)
    if name not in {source.name for source in _SOURCES.values()}:  # else it ran here, or came with this process' work
        python_file.run(python_file.read(name))
    found = [task for task, source in _SOURCES.items() if source.name == name]
    if len(found) != 1:
        raise UserError(f"{name} must add one task with evonorm.lab.training.tasks.add, got {len(found)}")
    return get(found[0])


def options_of(name: str) -> type[Any] | None:
    """The class of the task's own options; None where it has none, or is not known here."""
    return _TASKS[name].options if name in _TASKS else None


def _again(source: python_file.Source, name: str) -> Task:
    """The task where it has travelled to."""
    if name not in _TASKS:
        python_file.run(source)
    return get(name)


def get(name: str) -> Task:
    """The task of this name. Raises UserError if there is none."""
    if name not in _TASKS:
        raise UserError(f"there is no task {name!r}; known are {', '.join(_TASKS)}")
    return _TASKS[name]


def of(config: Mapping[str, Any]) -> Task:
    """The task of a record's configuration; of one that is older than tasks, classification.

    A task that this process does not know has a loss, and is told by that alone.
    """
    name = str(config.get("task") or DEFAULT)
    return _TASKS.get(name) or Task(name, (LOSS,), LOSS, lambda: get(name).work_class)


def figures(configs: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """What the epochs of these runs hold, each name once; of no runs, what a classification's hold."""
    names = [name for task in [of(config) for config in configs] or [CLASSIFICATION] for name in task.figures]
    return (*(name for name in dict.fromkeys(names) if name not in PACE), *PACE)


def measured(metrics: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """An epoch's metrics of any task, by split and name."""
    return {
        split: {key.removeprefix(f"{split}_"): value for key, value in metrics.items() if key.startswith(f"{split}_")}
        for split in SPLITS
    }


CLASSIFICATION = add(
    Task(
        DEFAULT,
        (LOSS, ACCURACY),
        ACCURACY,
        _classification,
        chance=lambda dataset: 1 / max(1, len(dataset["classes"])),
        # What Keras calls them: a W&B file written for Keras runs unchanged.
        aliases={"accuracy": "train_accuracy", "loss": "train_loss"},
    )
)


@dataclass(frozen=True)
class DetectionOptions:
    """Options of detection.

    Args:
        freeze_norms: of layer bn-relu: every BatchNorm keeps the statistics that the untrained network has on its first
            training pictures, and its weight and bias, as those of a trained network are kept when it is fine-tuned.
    """

    freeze_norms: bool = False


def _precision(name: str, words: str) -> Metric:
    return Metric(name, better="higher", unit="%", scale=100.0, words=words, splits=("val",))


# COCO's average precisions of boxes and masks, the mean over intersections over union from 0.50 to 0.95, and at 0.50.
MASK_AP = _precision("mask_ap", "mask AP")
add(
    Task(
        DETECTION,
        (
            LOSS,
            _precision("box_ap", "box AP"),
            _precision("box_ap50", "box AP50"),
            MASK_AP,
            _precision("mask_ap50", "mask AP50"),
        ),
        MASK_AP,
        _detection,
        # Of guesses next to none is right.
        chance=lambda dataset: 0.0,
        load=_pictures_with_objects,
        options=DetectionOptions,
        # Its losses are means over regions.
        replicas=False,
    )
)
DISTANCE = Metric("distance", splits=("val",))
add(
    Task(
        SYNTHESIS,
        (
            Metric("loss", splits=("train",)),
            Metric("generator_loss", splits=("train",)),
            DISTANCE,
            Metric("score", better="higher", splits=("val",)),
        ),
        DISTANCE,
        _synthesis,
        options=SynthesisOptions,
        replicas=False,
    )
)
_OWN = frozenset(_TASKS)
