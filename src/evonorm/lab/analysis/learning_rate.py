"""The learning-rate experiment in words and tables, by rule from its numbers."""

from __future__ import annotations

from evonorm.lab.analysis.findings import Analysis, Finding, Table, listed
from evonorm.lab.analysis.layers import lost, no_winner
from evonorm.lab.analysis.trials import CONFIDENCE
from evonorm.lab.analysis.usable_range import USABLE, Ladder, Range, Setting, charts, layers, panel, panels, usable

# What the report gave every layer, and the layer it suits.
REPORTS_SETTING = Setting("sgd", "raw", 1e-2)
RIVAL = "bn-relu"


def analysis(ladder: Ladder) -> Analysis:
    """Those findings that the runs can answer; every layer at its best, and with every optimizer and kind of pixels."""
    found = [_winner(ladder), _fairness(ladder), _pixels(ladder), _width(ladder), _divergence(ladder)]
    return Analysis(
        [finding for finding in found if finding is not None],
        [_best_table(ladder), _range_table(ladder)],
        charts(ladder),
        _method(ladder),
        leading=2,
    )


def _best_table(ladder: Ladder) -> Table:
    """Every layer, the best first; the range with the best setting's optimizer and pixels."""
    rows: list[tuple[str, ...]] = []
    for layer in layers(ladder):
        best = ladder.best(layer)
        found = usable(ladder, layer, best.place.optimizer, best.place.pixels)
        diverged = sum(point.diverged for point in ladder.points[layer])
        lost = f"{diverged} of {ladder.each}"
        rows.append((layer, str(best), str(best.place), _range(found), _decades(found), lost))
    return Table(
        "Every layer at its best setting: mean over seeds, from the worst to the best of them; the usable range with "
        "that optimizer and those pixels",
        ("layer", ladder.metric.titled("best"), "at", "range of learning rates that are usable", "decades", "diverged"),
        rows,
        (1, 4, 5),
    )


def _range_table(ladder: Ladder) -> Table:
    rows: list[tuple[str, ...]] = []
    for layer in layers(ladder):
        for optimizer, pixels in panels(ladder):
            best = min(panel(ladder, layer, optimizer, pixels), key=ladder.rank)
            found = usable(ladder, layer, optimizer, pixels)
            rate = f"{best.place.learning_rate:g}"
            rows.append((layer, optimizer, pixels, str(best), rate, _range(found), _decades(found)))
    header = ("layer", "optimizer", "pixels", ladder.metric.titled("best"), "at learning rate", "usable", "decades")
    return Table("By layer, optimizer and pixels", header, rows, (4, 6), title="Usable learning rates")


def _method(ladder: Ladder) -> str:
    """How the numbers were come by."""
    return (
        f"Each layer has {ladder.each} trials at the same places. Value: validation {ladder.metric.words} after "
        f"the last epoch, averaged over seeds; a run that diverged counts as {lost(ladder)}. "
        f"Noise: {ladder.noise()}; a difference counts if its {100 * CONFIDENCE:.0f} % interval excludes zero. "
        "The best of many trials flatters each layer alike, and is no estimate of "
        f"{ladder.metric.words} on new images. "
        f"A learning rate is usable if the layer keeps {100 * USABLE:.0f} % of what it gains over {ladder.lost_as} at "
        "its best rung, no run there diverged, and no rung between is worse; its width is between rungs, at least (≥) "
        "where the ladder ends first."
    )


def _winner(ladder: Ladder) -> Finding:
    question = "Which layer is best at its own best setting, with equal trials?"
    first, *others = layers(ladder)
    best = ladder.best(first)
    unit = f" {ladder.metric.unit}".rstrip()
    told = "; ".join(f"{layer} {p!s}{unit} ({p.place})" for layer in layers(ladder) for p in [ladder.best(layer)])
    if not others:
        return Finding(question, f"only {first} was run", f"{told}.")
    gaps = {layer: ladder.gap(best, ladder.best(layer)) for layer in others}
    level = [layer for layer, gap in gaps.items() if not gap.better]
    where = "above" if ladder.metric.better == "higher" else "from"
    lead = str(gaps[others[0]]).removeprefix("+")
    text = f"{told}. {first} is {lead} {ladder.points_of} {where} {others[0]}."
    if level:
        return Finding(question, no_winner([first, *level]), text)
    return Finding(question, first, text)


def _fairness(ladder: Ladder) -> Finding | None:
    """How much of each layer's distance to BN-ReLU is the setting that the report gave it."""
    if RIVAL not in ladder.points:
        return None
    rival_there, rival_best = ladder.at(RIVAL, REPORTS_SETTING), ladder.best(RIVAL)
    if rival_there is None:
        return None
    told, answers = [], []
    for layer in layers(ladder):
        there, best = ladder.at(layer, REPORTS_SETTING), ladder.best(layer)
        if layer == RIVAL or there is None:
            continue
        before, after = ladder.gap(there, rival_there), ladder.gap(best, rival_best)
        own, rivals = ladder.gap(best, there).plain(), ladder.gap(rival_best, rival_there).plain()
        told.append(
            f"{layer}: {before} {ladder.points_of} against {RIVAL} at the report's setting, {after} with each at its "
            f"own best, which gives {layer} {own} {ladder.points_of} and {RIVAL} {rivals}"
        )
        answers.append(f"{layer} {before.plain('+')}, then {after.plain('+')}")
    if not told:
        return None
    against = f"{ladder.points_of.capitalize()} against {RIVAL} there, then with each at its best:"
    question = f"Was the report's setting ({REPORTS_SETTING}) fair? {against}"
    return Finding(question, "; ".join(answers), "; ".join(told) + ".")


def _pixels(ladder: Ladder) -> Finding | None:
    kinds = {point.place.pixels for points in ladder.points.values() for point in points}
    if len(kinds) < 2:
        return None
    told: list[str] = []
    gaining: list[str] = []
    losing: list[str] = []
    for layer in layers(ladder):
        raw = ladder.best(layer, lambda place: place.pixels == "raw")
        standardized = ladder.best(layer, lambda place: place.pixels == "standardized")
        gap = ladder.gap(standardized, raw)
        told.append(f"{layer} {gap}")
        gaining += [layer] * gap.better
        losing += [layer] * gap.worse
    parts = [f"helps {listed(gaining)}"] if gaining else []
    parts += [f"harms {listed(losing)}"] if losing else []
    return Finding(
        "Does standardizing the pixels matter, each at its best learning rate?",
        " and ".join(parts) or "no difference that can be told from noise",
        f"Standardized minus raw, {ladder.points_of}: {'; '.join(told)}.",
    )


def _width(ladder: Ladder) -> Finding:
    widths = {}
    for layer in layers(ladder):
        ranges = [usable(ladder, layer, optimizer, pixels) for optimizer, pixels in panels(ladder)]
        widths[layer] = [0.0 if found is None else found.decades for found in ranges]
    mean = {layer: sum(found) / len(found) for layer, found in widths.items()}
    widest = [layer for layer in layers(ladder) if mean[layer] > max(mean.values()) - 0.05]
    told = "; ".join(f"{layer} {mean[layer]:.1f}" for layer in layers(ladder))
    return Finding(
        "Which layer forgives the wrong learning rate?",
        f"the widest: {listed(widest)}, {max(mean.values()):.1f} decades"
        if max(mean.values()) > 0
        else "no layer does",
        f"Decades of usable learning rates, averaged over optimizers and pixels: {told}.",
    )


def _divergence(ladder: Ladder) -> Finding:
    counts = {layer: sum(point.diverged for point in ladder.points[layer]) for layer in layers(ladder)}
    lost = [layer for layer, count in counts.items() if count]
    lowest = {
        layer: min((p.place for p in ladder.points[layer] if p.diverged), key=lambda setting: setting.learning_rate)
        for layer in lost
    }
    told = "; ".join(f"{layer} {counts[layer]} of {ladder.each}, the lowest {lowest[layer]}" for layer in lost)
    return Finding(
        "Which layers diverged?", listed(lost) if lost else "none, on this ladder", f"{told}." if told else ""
    )


def _range(found: Range | None) -> str:
    return "none" if found is None else f"{found.low:g} to {found.high:g}"


def _decades(found: Range | None) -> str:
    if found is None:
        return "0"
    return f"{'≥ ' if found.open_below or found.open_above else ''}{found.decades:.1f}"
