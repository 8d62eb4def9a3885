"""What a sweep says, in words made by rule from its numbers: each parameter's effect, and the report's conclusions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evonorm.lab.analysis import evidence
from evonorm.lab.analysis.importance import LEAST, LEVEL, Effect, Interval
from evonorm.lab.analysis.swept import Axis, Swept, number
from evonorm.lab.sweep.driver import best_by

Strength = Literal["strong", "moderate", "weak", "no effect found", "too few trials to tell"]
Verdict = Literal[
    "supported", "contradicted", "no clear difference", "no effect found", "too few trials to tell", "not examined"
]

# Of |r|, or of the root of the share that the forest explains, which is the same scale.
STRONG, WEAK = 0.5, 0.3
# Fewer trials than this of either optimizer are no ground to compare them.
LEAST_EACH = 5
# A trial that holds more of the metric's variance than this decides every r by itself.
ONE_TRIAL = 0.5


@dataclass(frozen=True)
class Reading:
    """A parameter, how strong its effect is, and the numbers behind it in words."""

    name: str
    strength: Strength
    text: str


@dataclass(frozen=True)
class Finding:
    """A conclusion of the report in our words, the verdict, and what this sweep shows."""

    claim: str
    verdict: Verdict
    text: str


def strength(effect: Effect) -> Strength:
    """A word for an effect that is seen; else whether the trials suffice to say that there is none to speak of.

    Seen: r's interval leaves out zero, or the importance is more than chance gives. Not seen, and r at most weak
    wherever in its interval it lies: no effect found.
    """
    if effect.correlation.clear or effect.beyond_chance:
        size = max(abs(effect.correlation.value), math.sqrt(effect.explained))
        return "strong" if size >= STRONG else "weak" if size < WEAK else "moderate"
    return "no effect found" if effect.correlation.farthest < WEAK else "too few trials to tell"


def readings(effects: Sequence[Effect], metric: str) -> list[Reading]:
    """One a parameter, in the effects' order."""
    return [Reading(effect.name, strength(effect), _told(effect, metric)) for effect in effects]


def answer(swept: Swept, effects: Sequence[Effect]) -> str:
    """The sweep in one paragraph."""
    counts = [
        f"{count} {status}"
        for status in ("finished", "pruned", "diverged", "failed", "running", "waiting")
        if (count := sum(trial.status == status for trial in swept.trials))
    ]
    sentences = [f"{_trials(len(swept.trials))}: {', '.join(counts)}."]
    best = best_by(swept.metric, swept.trials)
    if swept.metric is None:
        return " ".join([*sentences, "The sweep names no metric, so nothing says which trial is best."])
    if best is None or best.value is None:
        return " ".join([*sentences, f"None has a value of {swept.metric.name} yet."])
    sentences.append(f"Best {swept.metric.name}: {number(best.value)}, trial {best.number}.")
    judged, runs = len(swept.judged), len(set(swept.runs))
    if runs < judged:
        sentences.append(
            f"{_trials(judged - runs)} had the very run of another, for what differs between them changes nothing in "
            "it: such trials are drawn together, and count once where optimizers are compared."
        )
    if not effects:
        sentences.append(_why_nothing(swept, runs))
        return " ".join(sentences)
    told: dict[Strength, list[str]] = {}
    for effect in effects:
        told.setdefault(strength(effect), []).append(effect.name)
    order: tuple[Strength, ...] = ("strong", "moderate", "weak", "no effect found", "too few trials to tell")
    words = [f"{kind}: {', '.join(told[kind])}" for kind in order if kind in told]
    sentences.append(f"Effects on {swept.metric.name}, from {_trials(judged)}: {'; '.join(words)}.")
    share = _largest_share([swept.values[number] for number in swept.values])
    if share > ONE_TRIAL:
        sentences.append(
            f"One trial holds {100 * share:.0f} % of the metric's variance: it decides every correlation by itself."
        )
    return " ".join(sentences)


def conclusions(swept: Swept, effects: Sequence[Effect]) -> list[Finding]:
    """The report's three conclusions, where this sweep varies all that they speak of; else none."""
    axes = {axis.name: axis for axis in swept.axes}
    rate = next((name for name in ("learning_rate", "lr") if name in axes), None)
    if rate is None or swept.metric is None or not {"optimizer", "groups"} & set(axes):
        return []
    known = {effect.name: effect for effect in effects}
    found = [_adam(swept, axes["optimizer"])] if "optimizer" in axes else []
    found.append(_rate(swept, known.get(rate)))
    return [*found, _groups(swept, known.get("groups"))] if "groups" in axes else found


def _adam(swept: Swept, axis: Axis) -> Finding:
    claim = "Adam is the most promising optimizer."
    assert swept.metric is not None
    # A run that several trials share counts once.
    judged = {run: place for place, run in zip(swept.judged, swept.runs, strict=True)}.values()
    groups: dict[str, list[float]] = {}
    for place in judged:
        groups.setdefault(str(axis.values[place]), []).append(swept.values[swept.trials[place].number])
    adam = next((name for name in groups if name.lower() == "adam"), None)
    rivals = {name: values for name, values in groups.items() if name != adam}
    if adam is None or not rivals:
        return Finding(claim, "not examined", "It takes trials with Adam and with another optimizer.")
    rival = max(rivals, key=lambda name: statistics.fmean(rivals[name]) * swept_sign(swept))
    ours, theirs = groups[adam], rivals[rival]
    name = swept.metric.name
    means = [f"{number(statistics.fmean(values))} (n={len(values)})" for values in (ours, theirs)]
    text = f"Mean {name} {means[0]} with {adam}, {means[1]} with {rival}"
    bests = [number(swept.metric.best(values) or 0.0) for values in (ours, theirs)]
    tops = f" The best trial of each: {bests[0]} and {bests[1]}."
    if min(len(ours), len(theirs)) < LEAST_EACH:
        needed = f". At least {LEAST_EACH} of each are needed."
        return Finding(claim, "too few trials to tell", text + needed + tops)
    difference = _welch(ours, theirs, among=len(rivals))
    text += f"; difference {_signed(difference.value)}, between {_signed(difference.low)} and "
    text += f"{_signed(difference.high)} at {100 * LEVEL:.0f} % (Welch).{tops}"
    ranked = sorted(judged, key=lambda place: -swept_sign(swept) * swept.values[swept.trials[place].number])
    quarter = ranked[: max(1, len(ranked) // 4)]
    count = sum(str(axis.values[place]) == adam for place in quarter)
    text += f" Of the best quarter, {len(quarter)} of {len(judged)}, {count} used {adam}."
    if not difference.clear:
        return Finding(claim, "no clear difference", text)
    return Finding(claim, "supported" if difference.value * swept_sign(swept) > 0 else "contradicted", text)


def _rate(swept: Swept, effect: Effect | None) -> Finding:
    claim = "The learning rate is strongly correlated with the metric."
    if effect is None:
        return _nothing(swept, claim)
    text = _told(effect, swept.metric.name if swept.metric else "") + f" Strong is called |r| from {STRONG} on."
    r = effect.correlation
    if r.farthest < STRONG:
        if strength(effect) == "strong":
            text += " Its effect is strong all the same, but not linear: the middle can be better than both ends."
        return Finding(claim, "contradicted", text)
    supported = r.clear and abs(r.value) >= STRONG
    return Finding(claim, "supported" if supported else "too few trials to tell", text)


def _groups(swept: Swept, effect: Effect | None) -> Finding:
    claim = "The number of groups is weakly correlated with the metric."
    if effect is None:
        return _nothing(swept, claim)
    text = _told(effect, swept.metric.name if swept.metric else "") + f" Weak is called an effect below {WEAK}."
    if swept.identity:
        text += " These networks hold no layers, identities in their place: groups cannot matter, and whatever is "
        text += "found here is chance."
    r, kind = effect.correlation, strength(effect)
    if kind in ("no effect found", "too few trials to tell"):
        return Finding(claim, kind, text)
    if min(abs(r.low), abs(r.high)) >= WEAK and r.clear:
        return Finding(claim, "contradicted", text)
    return Finding(claim, "supported" if kind == "weak" else "contradicted", text)


def _told(effect: Effect, metric: str) -> str:
    r, share = effect.correlation, effect.importance
    what = f"{effect.name} = {effect.of}" if effect.of else effect.name
    text = f"r of {what} with {metric}: {_r(r)}"
    if effect.log_correlation is not None:
        text += f", of its logarithm: {_r(effect.log_correlation)}"
    text += f". Importance {share.value:.2f} (between {share.low:.2f} and {share.high:.2f}), "
    text += "more than a shuffled copy gets" if effect.beyond_chance else "no more than a shuffled copy gets"
    return f"{text}; it explains {100 * effect.explained:.0f} % of the variance."


def _r(interval: Interval) -> str:
    return (
        f"{_signed(interval.value, '.2f')} (between {_signed(interval.low, '.2f')} and {_signed(interval.high, '.2f')})"
    )


def _signed(value: float, form: str = ".3g") -> str:
    # Plus zero: a minus would say that what rounds to nothing is less.
    return f"{float(f'{value:{form}}') + 0.0:+{form}}".replace("-", "−")


def _nothing(swept: Swept, claim: str) -> Finding:
    return Finding(claim, "too few trials to tell", _why_nothing(swept, len(set(swept.runs))))


def _why_nothing(swept: Swept, judged: int) -> str:
    if not swept.axes:
        return "No parameter varies."
    if judged < LEAST:
        return f"{_trials(judged)} with a value are too few to tell what matters; {LEAST} are the least."
    return "Every trial has the same value, so no parameter has an effect to measure."


def _trials(count: int) -> str:
    return f"{count:,} trial" if count == 1 else f"{count:,} trials"


def swept_sign(swept: Swept) -> int:
    """1 where more is better, else -1."""
    return 1 if swept.metric is not None and swept.metric.goal == "maximize" else -1


def _largest_share(values: Sequence[float]) -> float:
    largest = max(abs(value) for value in values) or 1.0
    scaled = [value / largest for value in values]
    squares = [(value - statistics.fmean(scaled)) ** 2 for value in scaled]
    return max(squares) / sum(squares) if sum(squares) > 0 else 0.0


def _welch(a: Sequence[float], b: Sequence[float], *, among: int) -> Interval:
    parts = [statistics.variance(values) / len(values) for values in (a, b)]
    value = statistics.fmean(a) - statistics.fmean(b)
    margin = evidence.welch(parts, [len(a), len(b)], 1 - (1 - LEVEL) / (2 * among))
    return Interval(value, value - margin, value + margin)
