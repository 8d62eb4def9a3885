"""What a claim is answered with: a verdict that its runs can carry, and sentences with their numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evonorm.lab.analysis import evidence, outcomes
from evonorm.lab.analysis.comparison import Cell, percent, summarize
from evonorm.lab.analysis.evidence import Difference

# What the numbers say of a claim, before it is asked how much they can carry.
Leaning = Literal["holds", "does not hold", "mixed", "within noise"]
Verdict = Literal[
    "holds",
    "does not hold",
    "mixed",
    "within noise",
    "a lead: holds",
    "a lead: does not hold",
    "a lead: mixed",
    "open",
    "too little budget to tell",
    "not examined",
]
_NOT_ASKED = "not asked for"
_LEADS: dict[Leaning, Verdict] = {
    "holds": "a lead: holds",
    "does not hold": "a lead: does not hold",
    "mixed": "a lead: mixed",
    "within noise": "within noise",
}


@dataclass(frozen=True)
class Finding:
    """claim: the report's, in our words. answer: what these runs say, with its number and how many seeds say it.

    text: how that was measured. waiting: the runs that it takes and that have not ended, each with how far it came.
    """

    claim: str
    verdict: Verdict
    answer: str
    text: str = ""
    waiting: str = ""

    @property
    def still_open(self) -> str:
        """Which runs it waits for and why, as a sentence; empty without such."""
        asked = "was asked for and " if f"({_NOT_ASKED})" in self.waiting else ""
        return f"Open, for not every run {asked}has ended: {self.waiting}." if self.waiting else ""


def judged(
    claim: str, leaning: Leaning, answer: str, text: str, cells: Sequence[Cell], *, seeds: int, shown: bool = False
) -> Finding:
    """The finding that these cells' runs can carry.

    Open where a run of them has not ended; too little budget where they are short; a lead where one seed speaks.
    seeds: the fewest behind any of the numbers. shown: it has happened, so that length cannot change it.
    """
    waiting = unended(cells)
    taken = evidence.shortest(cells)
    if taken < evidence.ENOUGH_STEPS and not shown:
        return Finding(claim, "too little budget to tell", answer, text + _budget(leaning, cells, taken), waiting)
    if waiting:
        return Finding(claim, "open", answer, text, waiting)
    return Finding(claim, _LEADS[leaning] if seeds < 2 else leaning, answer, text)


def missing(claim: str, *cells: Cell) -> Finding:
    """The finding where nothing can be measured: why not, and what is on its way."""
    asked = [cell for cell in cells if cell.runs]
    if not asked:
        return Finding(claim, "not examined", "Its runs were not asked for.")
    runs = {f"{cell.experiment.id} ({cell.variant})": cell.runs.values() for cell in asked}
    answer = "; ".join(f"{name}: {outcomes.counted(records)}" for name, records in runs.items()) + "."
    waiting = unended(cells)
    if waiting:
        return Finding(claim, "open", answer, waiting=waiting)
    return Finding(claim, "not examined", answer, "A run that diverged has no last accuracy to compare.")


def unended(cells: Sequence[Cell]) -> str:
    """The cells' runs that have not ended, each with how far it came and what it had reached; empty if all have."""
    told: dict[str, str] = {}
    variants: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        variants[cell.experiment.id].add(cell.variant)
    for cell in cells:
        name = cell.experiment.id + (f" {cell.variant}" if len(variants[cell.experiment.id]) > 1 else "")
        if not cell.runs:
            told[f"{cell.experiment.id} {cell.variant}"] = f"{name} ({_NOT_ASKED})"
        for seed, record in cell.runs.items():
            if outcomes.state(record) in outcomes.UNENDED:
                which = name + (f" seed {seed}" if len(cell.runs) > 1 else "")
                told[f"{cell.experiment.id} {cell.variant} {seed}"] = f"{which} ({outcomes.end(record)})"
    return "; ".join(told.values())


def joined(leanings: Sequence[Leaning]) -> Leaning:
    """What the clear ones say, if they agree; what is within noise decides only where nothing is clear."""
    clear = {leaning for leaning in leanings if leaning != "within noise"}
    return "within noise" if not clear else clear.pop() if len(clear) == 1 else "mixed"


def seeds_told(count: int) -> str:
    """ "one seed", or "n = 3"."""
    return "one seed" if count == 1 else f"n = {count}"


def standing(difference: Difference, cells: Sequence[Cell]) -> str:
    """What a difference is: "one seed: a lead", "n = 3: within noise"; no verdict where the cells' runs are short."""
    what = "a lead" if difference.seeds < 2 else f"clear at {100 * evidence.LEVEL:.0f} %"
    what = what if difference.clear else "within noise"
    if evidence.shortest(cells) < evidence.ENOUGH_STEPS:
        what = "too little training to tell"
    return f"{seeds_told(difference.seeds)}: {what}"


def margins(noises: set[str], among: int) -> str:
    """Where the margins of a finding's differences come from."""
    together = f" for all {among} together" if among > 1 else ""
    return f" Margins at {100 * evidence.LEVEL:.0f} %{together}: {' and '.join(sorted(noises))}."


def _budget(leaning: Leaning, cells: Sequence[Cell], taken: int) -> str:
    """What it looks like, if it looks like anything, and how much training that is."""
    text = ""
    if evidence.stale_averages(cells):
        # Chance level from averages that lag behind says nothing of the layers: not even what it looks like.
        text = " BN-ReLU's validation numbers are depressed by the budget, as said at the top of the page."
        trained = {cell.experiment.id: percent(summarize(cell.last("train")), " %") for cell in cells}
        if len(cells) > 1 and any(trained.values()):
            text += f" Training accuracy: {'; '.join(f'{id} {told}' for id, told in trained.items() if told)}."
    elif leaning != "within noise":
        looks = {"holds": "as if it holds", "does not hold": "as if it does not hold", "mixed": "mixed"}[leaning]
        text = f" Within this budget it looks {looks}."
    return text + f" The report speaks of {evidence.REPORT_STEPS:,} steps; the shortest run here has {taken:,}."
