"""What the batch-size experiment found, by rule."""

from __future__ import annotations

from evonorm.lab.analysis.findings import Analysis, Finding, Panel, Table, listed
from evonorm.lab.analysis.layers import best_at, goal_caption, method
from evonorm.lab.analysis.trials import Gap, Trials

_METHODS = {
    "epochs": "Equal epochs, so a smaller batch takes more steps; the learning rate and its decay are proportional to "
    "the batch.",
    "steps": "Equal steps, so a smaller batch shows fewer images; the learning rate is proportional to the batch, its "
    "decay alike in all.",
}


def analysis(found: Trials[int], *, equal: str = "epochs") -> Analysis:
    """What small batches cost each layer, and who is best at either end. equal: what all runs have alike.

    The smallest is held to the largest, and to its neighbour, which takes nearly as many steps.
    """
    every = sizes(found)
    small, large = every[0], every[-1]
    costs = [_cost(found, small, other, equal) for other in dict.fromkeys((large, *every[1:2])) if other != small]
    ends = dict.fromkeys((small, large))
    bests = [best_at(found, size, f"Which layer is best with a batch of {size}?") for size in ends]
    return Analysis([*costs, *bests], [_table(found)], [panel(found)], method(found, _METHODS[equal]))


def sizes(found: Trials[int]) -> list[int]:
    """The batch sizes that every layer has run."""
    return sorted(found.places)


def panel(found: Trials[int]) -> Panel:
    """The goal against batch size."""
    by_size = {
        layer: [(float(point.place), point) for point in sorted(points, key=lambda point: point.place)]
        for layer, points in found.points.items()
    }
    title = f"{found.metric.title} against batch size"
    return Panel(title, "batch size", by_size, sizes(found))


def _table(found: Trials[int]) -> Table:
    return Table(
        goal_caption(found, "layer and batch size"),
        ("layer", *(f"{size}" for size in sizes(found))),
        [(layer, *(str(found.at(layer, size)) for size in sizes(found))) for layer in found.points],
        range(1, 1 + len(sizes(found))),
    )


def _cost(found: Trials[int], small: int, large: int, equal: str) -> Finding:
    gaps: dict[str, Gap] = {}
    for layer in found.points:
        low, high = found.at(layer, small), found.at(layer, large)
        assert low is not None
        assert high is not None
        gaps[layer] = found.gap(low, high)
    losing = [layer for layer, gap in gaps.items() if gap.worse]
    gaining = [layer for layer, gap in gaps.items() if gap.better]
    parts = [f"{listed(losing)} lose" if len(losing) > 1 else f"{losing[0]} loses"] if losing else []
    parts += [f"{listed(gaining)} gain" if len(gaining) > 1 else f"{gaining[0]} gains"] if gaining else []
    told = "; ".join(f"{layer} {gap}" for layer, gap in gaps.items())
    return Finding(
        f"What does a batch of {small} cost, against one of {large}, at equal {equal}?",
        ", ".join(parts) or "nothing that can be told from noise",
        f"{found.metric.title} at {small} minus {found.metric.words} at {large}, {found.points_of}: {told}.",
    )
