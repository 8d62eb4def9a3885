"""An experiment is its axes: what it varies, how much training a cell of its grid gets, and the cell's configuration.

The options of `evonorm reproduce`, the listing's entries, the labels of its runs and its page follow from that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from evonorm.lab.analysis.findings import Analysis
from evonorm.lab.analysis.layers import compared
from evonorm.lab.analysis.trials import Trials
from evonorm.lab.errors import UserError
from evonorm.lab.training import tasks
from evonorm.lab.training.config import Seeds, TrainConfig

REPORT_BATCH_SIZE = 128
# An axis' values by name, and `seed`.
Cell = Mapping[str, Any]


class Images(NamedTuple):
    """How many images a budget leaves of the data at hand."""

    train: int
    test: int


@dataclass(frozen=True)
class Budget:
    """How much of the report's training each run of an experiment does. images: None for all of them.

    batch_size: where the experiment does not vary it; small budgets take small ones, for 128 images a batch would leave
    a few dozen steps.
    """

    name: str
    epochs: int
    train_images: int | None
    test_images: int | None
    meaning: str
    batch_size: int = REPORT_BATCH_SIZE

    def config(self, cell: Cell, **own: Any) -> TrainConfig:
        """A run of this budget with the cell's seed everywhere but in the choice of images; own: what else it is."""
        seed = int(cell["seed"])
        common = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "train_images": self.train_images,
            "test_images": self.test_images,
            "seeds": Seeds(model=seed, order=seed, augmentation=seed),
        }
        return TrainConfig(**(common | own))


FULL = Budget("full", 60, None, None, "the report's own 60 epochs on every image")
QUARTER = Budget("quarter", 15, None, None, "a quarter of the report's epochs, on every image")


@dataclass(frozen=True)
class Axis:
    """What an experiment varies.

    name: its key in a cell. values: what it takes unless asked otherwise, of the cell's axes so far. option: its name
    on the command line; default: the plural of name. kind: type of a value there. help: what the default is, where
    `values` cannot say. every: a word there for all of them. order: in which its values are run. known: gives a value
    its own name; raises ValueError for one that there is not.
    """

    name: str
    values: Callable[[Cell], Sequence[Any]]
    option: str = ""
    kind: type = str
    help: str = ""
    every: str | None = None
    order: Literal["given", "rising", "falling"] = "given"
    known: Callable[[Any], Any] = lambda value: value

    @property
    def flag(self) -> str:
        """The option, without its hyphens."""
        return self.option or f"{self.name}s"

    def asked(self, values: Sequence[Any] | None, cell: Cell) -> list[Any]:
        """Those asked for, or the axis' own, each once. Raises UserError for one that there is not."""
        every = self.values(cell)
        try:
            spread = [one for value in values or every for one in (every if value == self.every else (value,))]
            found = list(dict.fromkeys(self.known(value) for value in spread))
        except ValueError as error:
            raise UserError(str(error)) from None
        return found if self.order == "given" else sorted(found, reverse=self.order == "falling")


def of(*values: Any) -> Callable[[Cell], Sequence[Any]]:
    """An axis' values where nothing decides them."""
    return lambda cell: values


@dataclass(frozen=True)
class Experiment:
    """name: of its listing and page, and as `--experiment` takes it. title: its page's. what: its runs, in two words.

    question: what it asks, for `--help`. config: of a cell, given how many images the budget leaves. lane: the axis
    whose values are compared, which runs fastest. place: a cell's place, that of the other axes. seeds: unless asked
    otherwise. label: what a run stands for, of the cells that come to it. task: what its runs are trained for, a
    name or a Python file. analyse: what the runs say. listing: the listing's name, where it is not the experiment's.
    """

    name: str
    title: str
    what: str
    question: str
    axes: tuple[Axis, ...]
    budgets: tuple[Budget, ...]
    config: Callable[[Cell, Budget, Images], TrainConfig]
    lane: str = "layer"
    place: Callable[[Cell], Hashable] | None = None
    seeds: tuple[int, ...] = (0, 1)
    label: Callable[[Sequence[Cell]], str] | None = None
    task: str = tasks.DEFAULT
    analyse: Callable[[Trials[Any]], Analysis] = compared
    listing: str = ""

    @property
    def listings(self) -> str:
        """Pattern of the files that say which run stands for which cell."""
        return f"{self.listing or self.name}-*.json"

    @property
    def others(self) -> list[str]:
        """The axes that make a place: all but the lane."""
        return [axis.name for axis in self.axes if axis.name != self.lane]

    def described(self) -> dict[str, Any]:
        """What its listing keeps of it: enough to read it, and to draw its page without this object."""
        axes = [axis.name for axis in self.axes]
        return {"name": self.name, "title": self.title, "axes": axes, "lane": self.lane}

    def budget(self, name: str) -> Budget:
        """The budget of this name. Raises UserError naming those there are."""
        found = {budget.name: budget for budget in self.budgets}
        if name not in found:
            raise UserError(f"{self.name} has no budget called {name!r}; choose from {', '.join(found)}")
        return found[name]

    def cells(
        self, asked: Mapping[str, Sequence[Any] | None] | None = None, seeds: Sequence[int] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Every cell, the first seed's first and the lane's values side by side. asked: values by axis, for its own.

        Raises UserError for a value that an axis does not take.
        """
        order = sorted(self.axes, key=lambda axis: axis.name == self.lane)
        for seed in dict.fromkeys(seeds or self.seeds):
            for cell in self._filled({}, order, asked or {}):
                yield {axis.name: cell[axis.name] for axis in self.axes} | {"seed": seed}

    def place_of(self, entry: Cell) -> Hashable:
        """What the experiment varies beside the lane and the seed."""
        if self.place is not None:
            return self.place(entry)
        values = [entry[name] for name in self.others]
        return values[0] if len(values) == 1 else tuple(values)

    def label_of(self, cells: Sequence[Cell]) -> str:
        """What a run stands for, beside what its name says."""
        if self.label is not None:
            return self.label(cells)
        values = [f"{cells[0][name]}" for name in self.others]
        return ", ".join([*values, f"seed {cells[0]['seed']}"])

    def _filled(self, cell: Cell, axes: Sequence[Axis], asked: Mapping[str, Any]) -> Iterator[Cell]:
        if not axes:
            yield cell
            return
        first, *others = axes
        for value in first.asked(asked.get(first.name), cell):
            yield from self._filled({**cell, first.name: value}, others, asked)
