"""What the architectures experiment found, by rule; a place is a model's name."""

from __future__ import annotations

from collections.abc import Sequence

from evonorm.lab.analysis import layers
from evonorm.lab.analysis.evidence import steps
from evonorm.lab.analysis.findings import Analysis, Finding, Table, listed
from evonorm.lab.analysis.tables import speed
from evonorm.lab.analysis.trials import Gap, Trials
from evonorm.lab.records.run_files import Record

STALE = 0.01  # share of a running statistic's starting value that is too much
# What the other layers are compared with, where it was run.
BASELINE = "bn-relu"


def analysis(found: Trials[str], own: Sequence[str]) -> Analysis:
    """In which models each layer is better or worse than BASELINE; without that, the best layer in each model.

    own: the experiment's models, in its order; others follow.
    """
    models = [model for model in own if model in found.places]
    models += sorted(set(found.places) - set(models))
    if others(found):
        told = [_against_baseline(found, layer, models) for layer in others(found)]
    else:
        told = [layers.best_at(found, model, f"Which layer is best in {model}?") for model in models]
    tables = [layers.goal_table(found, "model", models)]
    if others(found):
        tables.append(_differences(found, models))
    return Analysis(
        told,
        [*tables, _costs(found, models)],
        [layers.panel(found, models, "model")],
        _method(found, len(others(found)) * len(models)),
        caveat(found),
    )


def others(found: Trials[str]) -> list[str]:
    """The layers that are compared with BASELINE; none where it was not run."""
    return [layer for layer in found.points if layer != BASELINE] if BASELINE in found.points else []


def _method(found: Trials[str], count: int) -> str:
    wrong = f" Each misses one time in twenty; there are {count}." if count > 1 else ""
    first = (
        "Every network from random weights, with the same optimizer, learning rate and epochs for all; a layer stands "
        "at each normalization that an activation follows, the others stay BatchNorm."
    )
    return layers.method(found, first) + wrong


def caveat(found: Trials[str]) -> str:
    """What the shortest run leaves of its BatchNorms' starting statistics, where that is enough to spoil validation."""
    left = [
        ((1 - float(record.config["norm_momentum"])) ** count, count)
        for record in found.records
        if record.status == "finished" and (count := steps(record)) > 0 and "norm_momentum" in record.config
    ]
    share, count = max(left, default=(0.0, 0))
    if share <= STALE:
        return ""
    return (
        f"After {count} steps running statistics still hold {100 * share:.0f} % of their starting values, so that "
        "validation says little of networks with BatchNorm, those included where it was kept."
    )


def _differences(found: Trials[str], models: Sequence[str]) -> Table:
    rows = []
    for model in models:
        rows.append((model, *(str(difference(found, layer, model)) for layer in others(found))))
    header = ("model", *others(found))
    caption = f"{found.points_of.capitalize()} above {BASELINE} in the same model, with the interval"
    return Table(caption, header, rows, range(1, len(header)))


def difference(found: Trials[str], layer: str, model: str) -> Gap:
    """A layer's value minus that of BASELINE in a model."""
    one, other = found.at(layer, model), found.at(BASELINE, model)
    assert one is not None
    assert other is not None
    return found.gap(one, other)


def _costs(found: Trials[str], models: Sequence[str]) -> Table:
    rows = []
    for model in models:
        cells: list[str] = []
        for layer in found.points:
            runs = [r for r in found.records if (r.config.get("model"), r.config.get("layer")) == (model, layer)]
            cells += [_parameters(runs), speed(runs)]
        rows.append((model, *cells))
    header = ("model", *(f"{layer}, {what}" for layer in found.points for what in ("parameters", "images/s")))
    caption = (
        "What it costs: trainable parameters, and training images per second, median over epochs and seeds; runs share "
        "the machine"
    )
    return Table(caption, header, rows, range(1, len(header)))


def _parameters(runs: list[Record]) -> str:
    counts = {count for run in runs if isinstance(count := run.summary.get("parameters"), int)}
    return ", ".join(f"{count:,}" for count in sorted(counts)) or "–"


def _against_baseline(found: Trials[str], layer: str, models: Sequence[str]) -> Finding:
    by_model = {model: difference(found, layer, model) for model in models}
    better = [model for model, gap in by_model.items() if gap.better]
    worse = [model for model, gap in by_model.items() if gap.worse]
    parts = [f"better in {listed(better)}"] if better else []
    parts += [f"worse in {listed(worse)}"] if worse else []
    if len(better) + len(worse) < len(by_model):
        parts.append("not to be told apart in the others" if parts else "not to be told apart anywhere")
    told = "; ".join(f"{model} {gap}" for model, gap in by_model.items())
    text = f"{found.metric.title} minus that of {BASELINE}, {found.points_of}: {told}."
    return Finding(f"Is {layer} better than {BASELINE}?", ", ".join(parts), text)
