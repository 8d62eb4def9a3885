"""What is measured of an epoch: a metric's name, unit, and which way is good, and how a value of it is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Metric:
    """A number that an epoch has of the training and of the validation images, as train_NAME and val_NAME.

    better: which way is good. unit, scale: people read scale * value, in unit. words: its name as people read it, by
    default with blanks for underscores. short: the same where there is little room. counted: it is the share of images
    that are right, so that its error of counting is known. splits: which of the two it is of, where not of both.
    """

    name: str
    better: Literal["higher", "lower"] = "lower"
    unit: str = ""
    scale: float = 1.0
    words: str = ""
    short: str = ""
    counted: bool = False
    splits: tuple[str, ...] = SPLITS

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", self.words or self.name.replace("_", " "))

    @property
    def label(self) -> str:
        """As an axis has it: "accuracy, %"."""
        return f"{self.words}, {self.unit}" if self.unit else self.words

    @property
    def title(self) -> str:
        """The words with a capital letter first."""
        return self.words[0].upper() + self.words[1:]

    def key(self, split: str = "val") -> str:
        """Its name in an epoch."""
        return f"{split}_{self.name}"

    def figure(self, value: float | None) -> str:
        """A value as a table has it, without its unit."""
        return (
            "–" if value is None else f"{self.scale * value:.1f}" if self.unit == "%" else f"{self.scale * value:.4g}"
        )

    def said(self, value: float | None) -> str:
        """A value and its unit, "84.1 %", or its name where it has none, "loss 0.4512"."""
        return f"{self.figure(value)} {self.unit}" if self.unit else f"{self.words} {self.figure(value)}"

    def titled(self, what: str) -> str:
        """A column's title: "validation, %", or "validation loss" where there is no unit."""
        return f"{what}, {self.unit}" if self.unit else f"{what} {self.words}"

    def order(self, value: float | None) -> float:
        """A key that sorts the best first, and what is missing last."""
        return float("inf") if value is None else -value if self.better == "higher" else value

    def above(self, value: float, other: float) -> bool:
        """Whether the first value is the better one."""
        return self.order(value) < self.order(other)

    def best(self, epochs: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """The epoch that is best in validation, the first of equals; None where none has a finite value."""
        scored = (epoch for epoch in epochs if epoch.get(self.key()) is not None)
        return min(scored, key=lambda epoch: self.order(epoch[self.key()]), default=None)


LOSS = Metric("loss")
ACCURACY = Metric("accuracy", better="higher", unit="%", scale=100.0, short="acc.", counted=True)
