"""What an experiment's runs say, as data: findings in words, tables, and panels of points; a page draws it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evonorm.lab.analysis.trials import Point


@dataclass(frozen=True)
class Finding:
    """A question, a short answer, and the numbers behind it."""

    question: str
    answer: str
    text: str


@dataclass(frozen=True)
class Table:
    """numbers: the columns that are numbers, from 0. title: of the section that it opens below the charts, if any."""

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: Iterable[int]
    title: str = ""


@dataclass(frozen=True)
class Panel:
    """One chart of an experiment. lines: each layer's points by their place on the horizontal, logarithmic axis.

    ticks: where the axis is marked; none: at the powers of ten. names: what stands at 0, 1, ... on an axis that counts
    nothing, where no line joins the points; a point belongs to the nearest.
    """

    title: str
    axis: str
    lines: dict[str, list[tuple[float, Point[Any]]]]
    ticks: Sequence[float] = ()
    names: Sequence[str] = ()

    def place(self, at: float) -> str:
        """A point's place in words."""
        return self.names[round(at)] if self.names else f"{at:g}"


@dataclass(frozen=True)
class Analysis:
    """findings: the first of them, `leading`, or all, open the page. method: how the numbers were come by.

    caveat: what spoils them, if anything does.
    """

    findings: Sequence[Finding]
    tables: Sequence[Table]
    panels: Sequence[Panel]
    method: str
    caveat: str = ""
    leading: int | None = None

    @property
    def lead(self) -> str:
        """The page in a paragraph."""
        return " ".join(f"{finding.question} {finding.answer}." for finding in self.findings[: self.leading])


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
