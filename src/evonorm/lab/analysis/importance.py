"""How much each parameter of a sweep matters, with intervals: a random forest's importance and Pearson's r.

As W&B's panel defines them: "correlation is the linear correlation between the hyperparameter and the chosen metric",
importance is the feature importance of a random forest with the hyperparameters as inputs and the metric as target;
numbers as they are, texts and booleans one-hot. W&B publishes neither its trees nor its seed; ours are below.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

# Fewer trials than this say nothing of correlations.
LEAST = 8
LEVEL = 0.95
TREES, TREES_EACH_DRAW = 100, 6
DRAWS, FOREST_DRAWS = 1000, 40
# A leaf holds this share of the trials at least: leaves of one trial would learn its noise.
LEAF = 0.01
# Rarer values of a parameter beyond so many share a column.
MOST_COLUMNS = 30


@dataclass(frozen=True)
class Interval:
    """A value and where it lies at LEVEL, all intervals of a sweep together."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether it leaves out zero."""
        return self.low > 0 or self.high < 0

    @property
    def farthest(self) -> float:
        """The largest magnitude that it does not exclude."""
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True)
class Effect:
    """What one parameter does to the metric.

    correlation: Pearson's r; of a text, that of the value with the largest |r|, `of`. each: r of every value of a text.
    log_correlation: r with the parameter's logarithm, where its axis is one. importance: its share, a text's columns
    summed. beyond_chance: whether it is more than a shuffled copy of the parameter gets. explained: the share of the
    metric's variance that the forest foretells by it, of trials that a tree has not seen.
    """

    name: str
    correlation: Interval
    of: str
    each: tuple[tuple[str, Interval], ...]
    log_correlation: Interval | None
    importance: Interval
    beyond_chance: bool
    explained: float


@dataclass(frozen=True)
class Column:
    """A parameter as it is given: numbers, or texts (one-hot). log: whether its logarithm is looked at too."""

    name: str
    values: Sequence[Any]
    numeric: bool
    log: bool = False


def effects(
    columns: Sequence[Column], metric: Sequence[float], *, runs: Sequence[Any] | None = None, seed: int = 0
) -> tuple[Effect, ...]:
    """Each parameter's effect, the most important first; none for fewer runs than LEAST or a constant metric.

    runs: by trial, what it ran: trials of one run have one value and are drawn together; default: each its own.
    Intervals: runs are drawn anew with replacement; the standard error over the draws, by Fisher's z and Student's t
    for r, makes intervals that hold at LEVEL for all parameters and values together (Bonferroni). The draws follow
    from `seed` alone.
    """
    from scipy.stats import t

    target = _scaled(np.asarray(metric, dtype=np.float64))
    clusters = _clusters(range(len(target)) if runs is None else runs)
    if len(clusters) < LEAST or np.ptp(target) == 0 or not columns:
        return ()
    rng = np.random.default_rng(seed)
    blocks = [_encoded(column) for column in columns]
    among = sum(len(names) for names, _ in blocks)
    quantile = float(t.ppf(1 - (1 - LEVEL) / (2 * among), len(clusters) - 3))
    draws = np.stack([_draw(clusters, rng) for _ in range(DRAWS)])
    correlations = [
        [correlation(block[:, place], target, draws, quantile) for place in range(block.shape[1])]
        for _, block in blocks
    ]
    logs = [
        correlation(np.log(block[:, 0]), target, draws, quantile) if column.log else None
        for column, (_, block) in zip(columns, blocks, strict=True)
    ]
    shares, beyond, explained = _forests([block for _, block in blocks], target, clusters, rng, quantile)
    found = []
    for place, column in enumerate(columns):
        names = blocks[place][0]
        chosen = max(range(len(names)), key=lambda one: abs(correlations[place][one].value))
        each = () if column.numeric else tuple(zip(names, correlations[place], strict=True))
        of = "" if column.numeric else names[chosen]
        found.append(
            Effect(
                column.name,
                correlations[place][chosen],
                of,
                each,
                logs[place],
                shares[place],
                beyond[place],
                explained[place],
            )
        )
    return tuple(sorted(found, key=lambda effect: -effect.importance.value))


def correlation(column: Floats, target: Floats, draws: Places, quantile: float) -> Interval:
    """Pearson's r with its interval from these draws of trials; 0 where either does not vary."""
    value = float(_pearson(_scaled(column)[None, :], target[None, :])[0])
    drawn = _pearson(_scaled(column)[draws], target[draws])
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(drawn) < 2:
        return Interval(0.0, -1.0, 1.0)
    centre = np.arctanh(np.clip(value, -1 + 1e-9, 1 - 1e-9))
    # In few trials a draw can be on a line by chance: an r of 1, infinite in z, which is no standard error.
    error = float(np.std(np.arctanh(np.clip(drawn, -0.999, 0.999))))
    return Interval(value, float(np.tanh(centre - quantile * error)), float(np.tanh(centre + quantile * error)))


def _pearson(columns: Floats, targets: Floats) -> Floats:
    a = columns - columns.mean(axis=1, keepdims=True)
    b = targets - targets.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        r: Floats = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return r


def _forests(
    blocks: Sequence[Floats], target: Floats, clusters: Sequence[Places], rng: np.random.Generator, quantile: float
) -> tuple[list[Interval], list[bool], list[float]]:
    """Importance, whether it is beyond chance, and the explained share, of each block of columns."""
    from scipy.stats import gamma

    count, widths = len(target), [block.shape[1] for block in blocks]
    ranked = [_ranked(block) for block in blocks]
    whole = np.hstack(ranked)
    shares, score = _importances(whole, target, widths, rng, TREES)
    drawn, own, copies = [], [], []
    for _ in range(FOREST_DRAWS):
        rows = _draw(clusters, rng)
        drawn.append(_importances(whole[rows], target[rows], widths, rng, TREES_EACH_DRAW)[0])
        # Beside each parameter a copy of it whose trials are shuffled: what such a column gets by chance.
        shuffled = np.hstack([block[rng.permutation(count)] for block in ranked])
        both, _ = _importances(np.hstack([whole, shuffled]), target, widths * 2, rng, TREES_EACH_DRAW)
        own.append(both[: len(widths)])
        copies.append(both[len(widths) :])
    errors = np.std(drawn, axis=0)
    mean, spread = np.mean(copies, axis=0), np.std(copies, axis=0)
    tail = (1 - LEVEL) / len(blocks)
    intervals, beyond = [], []
    for place, share in enumerate(shares):
        margin = quantile * errors[place]
        intervals.append(Interval(float(share), float(max(0, share - margin)), float(min(1, share + margin))))
        variance = spread[place] ** 2
        limit = gamma.isf(tail, mean[place] ** 2 / variance, scale=variance / mean[place]) if variance > 0 else 0.0
        beyond.append(bool(np.mean(own, axis=0)[place] > limit))
    return intervals, beyond, [float(share * max(0.0, score)) for share in shares]


def _clusters(runs: Sequence[Any]) -> list[Places]:
    """Places of the trials of each run."""
    found: dict[Any, list[int]] = {}
    for place, run in enumerate(runs):
        found.setdefault(run, []).append(place)
    return [np.array(places) for places in found.values()]


def _draw(clusters: Sequence[Places], rng: np.random.Generator) -> Places:
    """As many trials as there are, drawn with replacement, all of a run together (the last run may be cut)."""
    count = sum(map(len, clusters))
    if len(clusters) == count:
        return rng.integers(count, size=count)
    drawn = [clusters[place] for place in rng.integers(len(clusters), size=count)]
    return np.concatenate(drawn)[:count]


def _importances(
    inputs: Floats, target: Floats, widths: Sequence[int], rng: np.random.Generator, trees: int
) -> tuple[Floats, float]:
    """Importance of each block, and (of a whole forest) R² on the trials that a tree has not seen."""
    from sklearn.ensemble import RandomForestRegressor

    scored = trees >= TREES
    forest = RandomForestRegressor(
        trees,
        min_samples_leaf=max(1, int(LEAF * len(target))),
        oob_score=scored,
        random_state=int(rng.integers(2**31)),
    )
    with warnings.catch_warnings():
        # A trial that every tree has seen has no score of its own: one in e^-46.
        warnings.simplefilter("ignore", UserWarning)
        forest.fit(inputs, target)
    ends = np.cumsum([0, *widths[:-1]])
    return np.add.reduceat(forest.feature_importances_, ends), float(forest.oob_score_) if scored else 0.0


def _encoded(column: Column) -> tuple[tuple[str, ...], Floats]:
    """A number as it is; a text as a column of zeros and ones a value, rare ones together beyond MOST_COLUMNS."""
    if column.numeric:
        known = [value for value in column.values if value is not None]
        # Where a nested parameter is absent it takes the middle, which says nothing.
        middle = float(np.median(known)) if known else 0.0
        return (column.name,), np.array([[middle if value is None else float(value)] for value in column.values])
    counts = Counter(str(value) for value in column.values)
    names = [name for name, _ in counts.most_common()]
    if len(names) > MOST_COLUMNS:
        names = [*names[: MOST_COLUMNS - 1], "(any other)"]
    kept = set(names)
    labels = [str(value) if str(value) in kept else "(any other)" for value in column.values]
    # Of two values, one column says all, yet W&B shows both: two columns.
    return tuple(names), np.array([[float(label == name) for name in names] for label in labels])


def _ranked(block: Floats) -> Floats:
    """Trees ask only for order: ranks keep it whatever the size of the numbers."""
    return np.stack([np.unique(column, return_inverse=True)[1].astype(np.float64) for column in block.T], axis=1)


def _scaled(values: Floats) -> Floats:
    """To a largest magnitude of 1, so that no square overflows."""
    largest = np.abs(values).max() if len(values) else 0.0
    return values / largest if largest > 0 else values
