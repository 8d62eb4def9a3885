"""The batch-size experiment: what it found by rule, its chart, its page; see trials."""

from __future__ import annotations

from pathlib import Path

from evonorm.lab.analysis import tables, trials
from evonorm.lab.analysis.comparison import Comparison
from evonorm.lab.analysis.trials import CONFIDENCE, Finding, Trials, listed
from evonorm.lab.pages import html, lines
from evonorm.lab.pages.lines import Panel
from evonorm.lab.records import export, listings

LISTINGS = trials.BATCH_SIZE


def read(folder: Path, name: str | None = None) -> Trials[int]:
    """See trials.read; a place is a batch size."""
    return trials.read(folder, LISTINGS, lambda entry: int(entry["batch_size"]), name)


def render(folder: Path, name: str | None = None, at: Path | None = None) -> str:
    """The page as text. Raises UserError if it has no runs."""
    found = read(folder, name)
    conditions = tables.conditions(Comparison(dict(found.budget), dict(found.dataset), {}, list(found.records)))
    told = findings(found)
    return html.fill(
        "batches.html.j2",
        trials=found,
        findings=told,
        lead=" ".join(f"{finding.question} {finding.answer}." for finding in told),
        method=method(found),
        header=("layer", *(f"{size}" for size in sizes(found))),
        rows=[(layer, *(str(found.at(layer, size)) for size in sizes(found))) for layer in found.points],
        chart=lines.chart(found, panel(found)),
        csv=html.as_csv(export.of_runs(found.records, listings.stands_for(folder)), "runs.csv", "These runs"),
        conditions=[(key, ", ".join(map(str, found.seeds)) if key == "seeds" else value) for key, value in conditions],
    )


def sizes(found: Trials[int]) -> list[int]:
    """The batch sizes that every layer has run."""
    return sorted({point.place for points in found.points.values() for point in points})


def findings(found: Trials[int]) -> list[Finding]:
    """What small batches cost each layer, and who is best at either end.

    The smallest is held to the largest, and to its neighbour, which takes nearly as many steps.
    """
    every = sizes(found)
    small, large = every[0], every[-1]
    costs = [_cost(found, small, other) for other in dict.fromkeys((large, *every[1:2])) if other != small]
    return costs + [_best_at(found, size) for size in dict.fromkeys((small, large))]


def method(found: Trials[int]) -> str:
    """How the numbers were come by."""
    return (
        f"Equal epochs, so a smaller batch takes more steps; the learning rate is proportional to the batch, as is its "
        f"decay. Value: validation accuracy after the last epoch; a run that diverged counts as chance "
        f"({100 * found.chance:.0f} %). Noise: {found.noise()}; intervals are of {100 * CONFIDENCE:.0f} %."
    )


def panel(found: Trials[int]) -> Panel:
    """Accuracy against batch size."""
    by_size = {
        layer: [(float(point.place), point) for point in sorted(points, key=lambda point: point.place)]
        for layer, points in found.points.items()
    }
    return Panel("Accuracy against batch size", "batch size", by_size, sizes(found))


def picture(folder: Path, path: Path, name: str | None = None) -> None:
    """Writes the chart as a picture, in the format that the path's suffix names."""
    found = read(folder, name)
    lines.picture(found, [panel(found)], path)


def draw(folder: Path, out: Path, name: str | None = None, kind: str = "png") -> list[Path]:
    """Writes the chart as a picture into the folder `out`, and returns its path. Raises as render does."""
    path = out / f"batch-size.{kind}"
    picture(folder, path, name)
    return [path]


def _cost(found: Trials[int], small: int, large: int) -> Finding:
    drops: dict[str, tuple[float, float]] = {}
    for layer in found.points:
        low, high = found.at(layer, small), found.at(layer, large)
        assert low is not None
        assert high is not None
        drops[layer] = 100 * (high.mean - low.mean), 100 * found.uncertainty(low, high)
    losing = [layer for layer, (drop, error) in drops.items() if drop > error]
    gaining = [layer for layer, (drop, error) in drops.items() if -drop > error]
    parts = [f"{listed(losing)} lose" if len(losing) > 1 else f"{losing[0]} loses"] if losing else []
    parts += [f"{listed(gaining)} gain" if len(gaining) > 1 else f"{gaining[0]} gains"] if gaining else []
    told = "; ".join(f"{layer} {-drop:+z.1f} ± {error:.1f}" for layer, (drop, error) in drops.items())
    return Finding(
        f"What does a batch of {small} cost, against one of {large}, at equal epochs?",
        ", ".join(parts) or "nothing that can be told from noise",
        f"Accuracy at {small} minus accuracy at {large}, points: {told}.",
    )


def _best_at(found: Trials[int], size: int) -> Finding:
    at = {layer: point for layer in found.points if (point := found.at(layer, size)) is not None}
    first, *others = sorted(at, key=lambda layer: -at[layer].mean)
    level = [one for one in others if at[first].mean - at[one].mean <= found.uncertainty(at[first], at[one])]
    told = "; ".join(f"{layer} {at[layer]} %" for layer in (first, *others))
    answer = f"no winner: {listed([first, *level])} cannot be told apart" if level else first
    return Finding(f"Which layer is best with a batch of {size}?", answer, f"{told}.")
