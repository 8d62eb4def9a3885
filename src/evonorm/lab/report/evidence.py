"""What numbers can carry: differences with their margins, and whether a run is long enough to speak of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evonorm.lab.report.comparison import Cell, Comparison, summarize

# The report speaks of 60 epochs on 50,000 images. A third of its steps is taken as the least that says how such a
# training ends; below, what is seen is told, and the claim is left open.
REPORT_STEPS = 60 * 391
ENOUGH_STEPS = REPORT_STEPS / 3
# Running averages that reach back over a larger share of a run than this describe weights that are gone.
STALE_SHARE = 0.05


@dataclass(frozen=True)
class Difference:
    """Of two mean accuracies, with the half-width of its 95 % interval; noise: where that comes from."""

    value: float
    margin: float
    noise: str

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return abs(self.value) > self.margin

    def __str__(self) -> str:
        return f"{100 * self.value:+.1f} ± {100 * self.margin:.1f} points"


def difference(a: Cell, b: Cell) -> Difference | None:
    """Last validation accuracy of a minus that of b; None where either has none.

    With several seeds each: Welch's interval. With one: the binomial error of counting on a finite validation set,
    which knows nothing of the noise between seeds, and is said to.
    """
    first, second = a.last("val_accuracy"), b.last("val_accuracy")
    one, two = summarize(first), summarize(second)
    if one is None or two is None:
        return None
    value = one.mean - two.mean
    if one.spread is None or two.spread is None:
        variance = sum(s.mean * (1 - s.mean) / max(1, c.validation_images) for s, c in ((one, a), (two, b)))
        return Difference(value, 1.96 * math.sqrt(variance), "one seed: counting error alone, run noise not measured")
    parts = [one.spread**2 / one.count, two.spread**2 / two.count]
    return Difference(value, _welch_quantile(parts, [one.count, two.count]) * math.sqrt(sum(parts)), "Welch, 95 %")


def enough_steps(cells: list[Cell]) -> bool:
    """Whether every run here is long enough to speak of the report's trainings."""
    records = [record for cell in cells for record in cell.records]
    return bool(records) and min(steps(record.config, record.dataset) for record in records) >= ENOUGH_STEPS


def steps(config: dict[str, object], dataset: dict[str, object]) -> int:
    """Training steps of a whole run."""
    batch, images = int(str(config.get("batch_size", 1))), int(str(dataset.get("train_images", 0)))
    return int(str(config.get("epochs", 0))) * int(str(config.get("steps_per_epoch") or -(-images // batch)))


def stale_averages(comparison: Comparison) -> str:
    """A warning where BatchNorm's running averages reach back over much of its training; else empty."""
    shares = [
        (batches, batches / steps(record.config, record.dataset))
        for record in comparison.records
        if str(record.config.get("layer", "")).startswith("bn-")
        for batches in [1 / float(record.config.get("norm_momentum") or 1)]
    ]
    batches, share = max(shares, key=lambda pair: pair[1], default=(0.0, 0.0))
    if share <= STALE_SHARE:
        return ""
    return (
        f"BN-ReLU keeps the report's running averages, which reach back over about {batches:.0f} batches: here up to "
        f"{100 * min(1.0, share):.0f} % of a run. In validation it normalizes by statistics of weights long gone, so "
        "short runs show it far below what it has learned; compare its training accuracy too."
    )


def _welch_quantile(parts: list[float], counts: list[int]) -> float:
    from scipy.stats import t

    spread = sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    freedom = sum(parts) ** 2 / spread if spread > 0 else float(sum(counts) - 2)
    return float(t.ppf(0.975, freedom))
