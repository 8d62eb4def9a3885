"""EvoNorm against BN-ReLU: by how many points each layer ends above or below it, and how often it diverged."""

from __future__ import annotations

from collections.abc import Sequence

from evonorm.lab.analysis import evidence, outcomes
from evonorm.lab.analysis.comparison import LAYERS, Cell, Comparison, percent, summarize
from evonorm.lab.analysis.evidence import Difference
from evonorm.lab.analysis.findings import listed
from evonorm.lab.analysis.verdicts import Finding, Leaning, joined, judged, margins, missing, standing

# Accuracies closer than this are the same in the digits that are shown.
LEVEL_WITH = 0.0005


def against_bn(runs: Comparison, claim: str, ids: Sequence[str], rival: str) -> Finding:
    """The layers as intended against BN-ReLU, whose experiment is `rival`: each layer's points, and what diverged."""
    baseline = runs.cell(rival, "intended")
    cells = [runs.cell(id, "intended") for id in ids]
    reference = percent(summarize(baseline.last()), " %")
    finished = [cell for cell in cells if cell.last()]
    lost = [cell for cell in cells if cell.with_status("diverged")]
    if not reference or not (finished or lost):
        return missing(claim, *([baseline] if not reference else cells))
    among = len(finished)
    found = [(cell, evidence.difference(cell, baseline, among=among)) for cell in finished]
    known = [(cell, difference) for cell, difference in found if difference is not None]
    leanings = [_below(difference) for _, difference in known]
    # A layer that diverges does not match either.
    leanings += ["holds" for _ in lost]
    told = [
        f"{cell.experiment.id} {percent(summarize(cell.last()), ' %')} ({difference})" for cell, difference in known
    ]
    told += [f"{cell.experiment.id}: {rate(cell)}" for cell in lost]
    text = f"As intended, against {rival}'s {reference}: {'; '.join(told)}."
    if known:
        text += margins({difference.noise for _, difference in known}, among)
    answer = " ".join(_ends(known, baseline) + _lost(lost))
    seeds = min([difference.seeds for _, difference in known] + [len(cell.with_status("diverged")) for cell in lost])
    return judged(claim, joined(leanings), answer, text, [*cells, baseline], seeds=seeds)


def _below(difference: Difference) -> Leaning:
    if not difference.clear:
        return "within noise"
    return "holds" if difference.value < 0 else "does not hold"


def _ends(known: Sequence[tuple[Cell, Difference]], baseline: Cell) -> list[str]:
    """Each layer against BN-ReLU in a sentence: "EvoNorm-B0 is 2.0 points above BN-ReLU, one seed: a lead."."""
    alike: dict[tuple[str, str, str], list[tuple[Cell, Difference]]] = {}
    for cell, difference in known:
        where = "level with" if abs(difference.value) < LEVEL_WITH else "below" if difference.value < 0 else "above"
        how = standing(difference, [cell, baseline])
        alike.setdefault((cell.experiment.layer, where, how), []).append((cell, difference))
    sentences = []
    for (layer, where, how), members in alike.items():
        groups = [str(cell.experiment.groups) for cell, _ in members if cell.experiment.groups]
        values = listed([f"{100 * abs(difference.value):.1f}" for _, difference in members])
        apart = "" if where == "level with" else f"{values} points "
        having = f" with {listed(groups)} groups" if groups else ""
        sentences.append(f"{LAYERS[layer]} is {apart}{where} BN-ReLU{having}, {how}.")
    return sentences


def _lost(cells: Sequence[Cell]) -> list[str]:
    return [f"{cell.name}: {rate(cell)}." for cell in cells]


def rate(cell: Cell) -> str:
    """How often the cell's runs diverged: with an interval where all have ended."""
    lost, ended = len(cell.with_status("diverged")), len(cell.with_status("finished") + cell.with_status("diverged"))
    if ended == len(cell.runs):
        return f"{evidence.rate(lost, ended)} diverged"
    return f"{lost} of {len(cell.runs)} diverged so far ({outcomes.counted(cell.runs.values())})"
