"""The architectures experiment: what it found by rule, its tables, its page; see trials."""

from __future__ import annotations

import statistics
from pathlib import Path

from evonorm.lab.analysis import tables, trials
from evonorm.lab.analysis.comparison import Comparison
from evonorm.lab.analysis.evidence import steps
from evonorm.lab.analysis.trials import CONFIDENCE, Finding, Trials, listed
from evonorm.lab.experiments import architectures
from evonorm.lab.pages import html, lines
from evonorm.lab.pages.lines import Panel
from evonorm.lab.records import export, listings
from evonorm.lab.records.run_files import Record

LISTINGS = trials.ARCHITECTURES
STALE = 0.01  # share of a running statistic's starting value that is too much
APART = 0.12  # between the layers of one model, so that none hides another
# What the other layers are compared with, where it was run.
BASELINE = "bn-relu"


def read(folder: Path, name: str | None = None) -> Trials[str]:
    """See trials.read; a place is a model's name."""
    return trials.read(folder, LISTINGS, lambda entry: str(entry["model"]), name)


def render(folder: Path, name: str | None = None, at: Path | None = None) -> str:
    """The page as text. Raises UserError if it has no runs."""
    found = read(folder, name)
    conditions = tables.conditions(Comparison(dict(found.budget), dict(found.dataset), {}, list(found.records)))
    told = findings(found)
    return html.fill(
        "architectures.html.j2",
        trials=found,
        findings=told,
        lead=" ".join(f"{finding.question} {finding.answer}." for finding in told),
        caveat=caveat(found),
        method=method(found),
        header=("model", *found.points),
        rows=accuracy_rows(found),
        differences_header=("model", *others(found)),
        differences=difference_rows(found),
        baseline=BASELINE,
        cost_header=("model", *(f"{layer}, {what}" for layer in found.points for what in ("parameters", "images/s"))),
        costs=cost_rows(found),
        chart=lines.chart(found, panel(found)),
        csv=html.as_csv(export.of_runs(found.records, listings.stands_for(folder)), "runs.csv", "These runs"),
        conditions=[(key, ", ".join(map(str, found.seeds)) if key == "seeds" else value) for key, value in conditions],
        diverged=[record for record in found.records if record.status == "diverged"],
    )


def models(found: Trials[str]) -> list[str]:
    """Those that every layer has run: the experiment's own in their order, then others."""
    there = {point.place for points in found.points.values() for point in points}
    own = [model for model in architectures.MODELS if model in there]
    return own + sorted(there - set(own))


def others(found: Trials[str]) -> list[str]:
    """The layers that are compared with BASELINE; none where it was not run."""
    return [layer for layer in found.points if layer != BASELINE] if BASELINE in found.points else []


def findings(found: Trials[str]) -> list[Finding]:
    """In which models each layer is better or worse than BASELINE; without that, the best layer in each model."""
    if others(found):
        return [_against_baseline(found, layer) for layer in others(found)]
    return [_best_in(found, model) for model in models(found)]


def method(found: Trials[str]) -> str:
    """How the numbers were come by."""
    count = len(others(found)) * len(models(found))
    wrong = f" Each misses one time in twenty; there are {count}." if count > 1 else ""
    return (
        "Every network from random weights, with the same optimizer, learning rate and epochs for all; a layer stands "
        "at each normalization that an activation follows, the others stay BatchNorm. Value: validation accuracy after "
        f"the last epoch; a run that diverged counts as chance ({100 * found.chance:.0f} %). Noise: "
        f"{found.noise()}; intervals are of {100 * CONFIDENCE:.0f} %.{wrong}"
    )


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


def panel(found: Trials[str]) -> Panel:
    """Accuracy by model."""
    names, middle = models(found), (len(found.points) - 1) / 2
    return Panel(
        "Accuracy by model",
        "model",
        {
            layer: [(names.index(point.place) + APART * (number - middle), point) for point in points]
            for number, (layer, points) in enumerate(found.points.items())
        },
        names=names,
    )


def draw(folder: Path, out: Path, name: str | None = None, kind: str = "png") -> list[Path]:
    """Writes the chart as a picture into the folder `out`, and returns its path. Raises as render does."""
    path = out / f"architectures.{kind}"
    found = read(folder, name)
    lines.picture(found, [panel(found)], path)
    return [path]


def accuracy_rows(found: Trials[str]) -> list[tuple[str, ...]]:
    """A row a model, a column a layer: mean over seeds."""
    return [(model, *(str(found.at(layer, model)) for layer in found.points)) for model in models(found)]


def difference_rows(found: Trials[str]) -> list[tuple[str, ...]]:
    """A row a model, a column a layer: points above BASELINE, and the interval's half width."""
    rows = []
    for model in models(found):
        differences = [difference(found, layer, model) for layer in others(found)]
        rows.append((model, *(f"{points:+.1f} ± {error:.1f}" for points, error in differences)))
    return rows if others(found) else []


def difference(found: Trials[str], layer: str, model: str) -> tuple[float, float]:
    """Accuracy of a layer minus that of BASELINE in a model, points, and half the width of its interval."""
    one, other = found.at(layer, model), found.at(BASELINE, model)
    assert one is not None
    assert other is not None
    return 100 * (one.mean - other.mean), 100 * found.uncertainty(one, other)


def cost_rows(found: Trials[str]) -> list[tuple[str, ...]]:
    """A row a model; for each layer its trainable parameters, and the median of its epochs' images per second."""
    rows = []
    for model in models(found):
        cells: list[str] = []
        for layer in found.points:
            runs = [r for r in found.records if (r.config.get("model"), r.config.get("layer")) == (model, layer)]
            cells += [_parameters(runs), _speed(runs)]
        rows.append((model, *cells))
    return rows


def _parameters(runs: list[Record]) -> str:
    counts = {count for run in runs if isinstance(count := run.summary.get("parameters"), int)}
    return ", ".join(f"{count:,}" for count in sorted(counts)) or "–"


def _speed(runs: list[Record]) -> str:
    speeds = [epoch["images_per_second"] for run in runs for epoch in run.metrics if epoch.get("images_per_second")]
    return f"{statistics.median(speeds):.0f}" if speeds else "–"


def _against_baseline(found: Trials[str], layer: str) -> Finding:
    by_model = {model: difference(found, layer, model) for model in models(found)}
    better = [model for model, (points, error) in by_model.items() if points > error]
    worse = [model for model, (points, error) in by_model.items() if -points > error]
    parts = [f"better in {listed(better)}"] if better else []
    parts += [f"worse in {listed(worse)}"] if worse else []
    if len(better) + len(worse) < len(by_model):
        parts.append("not to be told apart in the others" if parts else "not to be told apart anywhere")
    told = "; ".join(f"{model} {points:+.1f} ± {error:.1f}" for model, (points, error) in by_model.items())
    return Finding(
        f"Is {layer} better than {BASELINE}?", ", ".join(parts), f"Accuracy minus that of {BASELINE}, points: {told}."
    )


def _best_in(found: Trials[str], model: str) -> Finding:
    at = {layer: point for layer in found.points if (point := found.at(layer, model)) is not None}
    first, *rest = sorted(at, key=lambda layer: -at[layer].mean)
    level = [one for one in rest if at[first].mean - at[one].mean <= found.uncertainty(at[first], at[one])]
    told = "; ".join(f"{layer} {at[layer]} %" for layer in (first, *rest))
    answer = f"no winner: {listed([first, *level])} cannot be told apart" if level else first
    return Finding(f"Which layer is best in {model}?", answer, f"{told}.")
