"""The report's claims, and by rule what these runs say of each: pure functions of the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from evonorm.lab.experiments import VARIANTS, Variant
from evonorm.lab.report import evidence
from evonorm.lab.report.comparison import Cell, Comparison, percent, summarize

Verdict = Literal["supported", "contradicted", "mixed", "within noise", "too little budget to tell", "not examined"]

# Training accuracy this far above validation accuracy, at the last epoch, is called overfitting ...
OVERFIT_GAP = 0.10
# ... if the validation loss has also risen this far above its lowest.
OVERFIT_RISE = 1.10
# A training is called balanced if the two accuracies end this close.
BALANCED_GAP = 0.05
# A validation loss is said to fluctuate a lot if it changes by this share of its level, beyond its trend, per epoch.
FLUCTUATION = 0.10

S0, S0_AUG = ("s0-g8", "s0-g16", "s0-g32"), ("s0-g8-aug", "s0-g16-aug", "s0-g32-aug")


@dataclass(frozen=True)
class Finding:
    """A claim of the report in our words, what these runs show, and the verdict."""

    claim: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Section:
    """A section of the report: its title, the experiments it is about, and its findings."""

    anchor: str
    title: str
    experiments: tuple[str, ...]
    findings: tuple[Finding, ...]


def sections(runs: Comparison) -> tuple[Section, ...]:
    """The report's sections in its order, with what these runs show."""
    adam, sgd, augmented = "bn-relu-adam", "bn-relu-sgd", "bn-relu-sgd-aug"
    fluctuates, overfits = _fluctuates(runs, adam), _overfits(runs, adam, "The network clearly overfits.")
    overfits_too = _overfits(runs, sgd, "With SGD in Adam's place it still overfits.")
    b0 = (
        _against_bn(runs, "EvoNorm-B0 ends below BN-ReLU (75.7 against 84.3 %).", ("b0",), sgd),
        _not_a_number(runs, "With augmentation, EvoNorm-B0's loss is NaN.", ("b0-aug",)),
    )
    s0 = (
        _against_bn(runs, "EvoNorm-S0 ends below BN-ReLU (76.0 and 74.8 against 84.3 %).", S0, sgd),
        _groups_alike(runs),
        _not_a_number(runs, "The loss is NaN with 32 groups, and with augmentation always.", ("s0-g32", *S0_AUG)),
    )
    sweep = Finding(
        "Adam is the most promising optimizer; the learning rate matters much, groups little.",
        "not examined",
        "These runs hold one learning rate an optimizer; no sweep is among them. In the report the sweep maximized "
        "training accuracy, and its groups never reached the layer.",
    )
    conclusion = (
        _against_bn(runs, "EvoNorm cannot match BN-ReLU, without augmentation.", ("b0", *S0), sgd),
        _against_bn(runs, "EvoNorm cannot match BN-ReLU, with augmentation.", ("b0-aug", *S0_AUG), augmented),
        _identity_matters(runs),
    )
    return (
        Section("bn-adam", "Adam, BN-ReLU, no augmentation", (adam,), (fluctuates, overfits)),
        Section("bn-sgd", "SGD, BN-ReLU, no augmentation", (sgd,), (overfits_too,)),
        Section("bn-aug", "SGD, BN-ReLU, augmentation", (augmented,), (_balanced(runs, augmented),)),
        Section("b0", "EvoNorm-B0", ("b0", "b0-aug"), b0),
        Section("s0", "EvoNorm-S0, groups 8, 16, 32", (*S0, *S0_AUG), s0),
        Section("sweep", "Hyperparameter sweep", (), (sweep,)),
        Section("conclusion", "Conclusion", (), conclusion),
    )


def _fluctuates(runs: Comparison, id: str) -> Finding:
    claim = "The validation loss fluctuates a lot."
    cell = _either(runs, id)
    share = evidence.fluctuation(cell)
    if share is None:
        if evidence.gap(cell) is None:
            return _missing(claim, cell)
        return Finding(claim, "too little budget to tell", "The runs are too short to tell fluctuation from progress.")
    text = f"In the second half of {id} the validation loss changes from epoch to epoch by {100 * share:.0f} % of its "
    text += f"level (standard deviation); from {100 * FLUCTUATION:.0f} % on that is called a lot."
    return _with_budget(claim, "supported" if share >= FLUCTUATION else "contradicted", text, [cell])


def _overfits(runs: Comparison, id: str, claim: str) -> Finding:
    cell = _either(runs, id)
    gap, rise = evidence.gap(cell), evidence.rise(cell)
    if gap is None or rise is None:
        return _missing(claim, cell)
    text = f"{id} ends at {evidence.accuracies(cell)}, a gap of {evidence.points(gap)} points, and its validation loss "
    text += f"at {rise:.2f} times its lowest. Called overfitting from a gap of {100 * OVERFIT_GAP:.0f} points and a "
    text += f"rise to {OVERFIT_RISE:.2f} times."
    seen = gap > OVERFIT_GAP and rise > OVERFIT_RISE
    return _with_budget(claim, "supported" if seen else "contradicted", text, [cell])


def _balanced(runs: Comparison, id: str) -> Finding:
    claim = "With augmentation the training is balanced: training and validation stay close."
    cell = _either(runs, id)
    gap = evidence.gap(cell)
    if gap is None:
        return _missing(claim, cell)
    text = f"{id} ({cell.variant}) ends at {evidence.accuracies(cell)}, a gap of {evidence.points(gap)} points. Called "
    text += f"balanced up to {100 * BALANCED_GAP:.0f} points."
    return _with_budget(claim, "supported" if abs(gap) <= BALANCED_GAP else "contradicted", text, [cell])


def _against_bn(runs: Comparison, claim: str, ids: Sequence[str], rival: str) -> Finding:
    baseline = runs.cell(rival, "intended")
    cells = [runs.cell(id, "intended") for id in ids]
    told: list[str] = []
    verdicts: list[Verdict] = []
    noises = set()
    for cell in cells:
        lost = len(cell.with_status("diverged"))
        if lost:
            told.append(f"{cell.experiment.id}: {lost} of {len(cell.records)} diverged")
            verdicts.append("supported")
        found = evidence.difference(cell, baseline, among=len(cells))
        if found is not None:
            told.append(f"{cell.experiment.id} {percent(summarize(cell.last('val_accuracy')), ' %')} ({found})")
            noises.add(found.noise)
            verdicts.append(("supported" if found.value < 0 else "contradicted") if found.clear else "within noise")
    reference = percent(summarize(baseline.last("val_accuracy")), " %")
    if not reference:
        return _missing(claim, baseline)
    if not verdicts:
        return _missing(claim, *cells)
    text = f"As intended, against {rival}'s {reference}: {'; '.join(told)}."
    if noises:
        text += _margins(noises, len(cells))
    return _with_budget(claim, _joined(verdicts), text, [*cells, baseline])


def _groups_alike(runs: Comparison) -> Finding:
    claim = "The number of groups matters little."
    cells = [runs.cell(id, "intended") for id in S0]
    pairs = list(combinations(cells, 2))
    found = [(a, b, evidence.difference(a, b, among=len(pairs))) for a, b in pairs]
    known = [(a, b, difference) for a, b, difference in found if difference is not None]
    if not known:
        return _missing(claim, *cells)
    told = "; ".join(f"{a.experiment.id} against {b.experiment.id} {difference}" for a, b, difference in known)
    text = f"As intended: {told}.{_margins({difference.noise for _, _, difference in known}, len(pairs))} In the "
    text += "report these three were one and the same function, so its differences are the noise between runs."
    clear = any(difference.clear for _, _, difference in known)
    return _with_budget(claim, "contradicted" if clear else "within noise", text, cells)


def _not_a_number(runs: Comparison, claim: str, ids: Sequence[str]) -> Finding:
    told: list[str] = []
    verdicts: list[Verdict] = []
    cells = [runs.cell(id, variant) for variant in VARIANTS for id in ids]
    meanings = {"published": "with the identities that the report's code ran", "intended": "as defined"}
    for variant, meaning in meanings.items():
        these = {record.name: record for cell in cells if cell.variant == variant for record in cell.records}
        ended = [record for record in these.values() if record.status in ("finished", "diverged")]
        if not ended:
            continue
        lost = sum(record.status == "diverged" for record in ended)
        told.append(f"{meaning}, {lost} of {len(ended)} runs diverged")
        verdicts.append("supported" if lost else "contradicted")
    if not told:
        return _missing(claim, *cells)
    text = "; ".join(told)
    text = text[0].upper() + text[1:] + ". A run counts as diverged at its first loss or gradient that is not finite."
    # One divergence is enough to show that it happens; that it does not takes the whole training.
    verdict = _joined(verdicts)
    return Finding(claim, verdict, text) if "supported" in verdicts else _with_budget(claim, verdict, text, cells)


def _identity_matters(runs: Comparison) -> Finding:
    claim = "The layers train otherwise than the identities that ran in their place (our question, not the report's)."
    told: list[str] = []
    verdicts: list[Verdict] = []
    cells: list[Cell] = []
    noises = set()
    for id in ("b0", *S0):
        intended, published = runs.cell(id, "intended"), runs.cell(id, "published")
        found = evidence.difference(intended, published, among=1 + len(S0))
        if found is not None:
            cells += [intended, published]
            noises.add(found.noise)
            told.append(f"{id} {found}")
            verdicts.append("supported" if found.clear else "within noise")
    identity = runs.cell("b0", "published")
    if told:
        accuracy = percent(summarize(identity.last("val_accuracy")), " %")
        lead = f"The layers as defined, against the identity's {accuracy}: " if accuracy else "Against the identity: "
        text = lead + "; ".join(told) + "." + _margins(noises, 1 + len(S0))
        return _with_budget(claim, _joined(verdicts), text, cells)
    trained = [record for id in ("b0", *S0) for record in runs.cell(id, "intended").with_status("finished")]
    lost = identity.with_status("diverged")
    if lost and trained:
        text = f"Without augmentation the identity diverged in {len(lost)} of {len(identity.records)} runs, so it has "
        text += f"no accuracy to compare; {len(trained)} runs of the layers as defined came to their end."
        return Finding(claim, "supported", text)
    return Finding(claim, "not examined", "It takes finished runs of both variants, published and intended.")


def _either(runs: Comparison, id: str) -> Cell:
    """The cell as intended where it was run, else as published."""
    variants: tuple[Variant, ...] = ("intended", "published")
    return next((runs.cell(id, v) for v in variants if runs.cell(id, v).records), runs.cell(id, "intended"))


def _with_budget(claim: str, verdict: Verdict, text: str, cells: list[Cell]) -> Finding:
    """The verdict where the runs are long enough to give one; else what it looks like, if it looks like anything."""
    taken = evidence.shortest(cells)
    if taken >= evidence.ENOUGH_STEPS:
        return Finding(claim, verdict, text)
    if evidence.stale_averages(cells):
        # Chance level from averages that lag behind says nothing of the layers: not even what it looks like.
        text += " BN-ReLU's validation numbers are depressed by the budget, as said at the top of the page."
        trained = {cell.experiment.id: percent(summarize(cell.last("train_accuracy")), " %") for cell in cells}
        if len(cells) > 1:
            text += f" Training accuracy: {'; '.join(f'{id} {told}' for id, told in trained.items() if told)}."
    elif verdict != "within noise":
        text += f" Within this budget it looks {verdict}."
    text += f" The report speaks of {evidence.REPORT_STEPS:,} steps; the shortest run here has {taken:,}."
    return Finding(claim, "too little budget to tell", text)


def _missing(claim: str, *cells: Cell) -> Finding:
    planned = sum(len(cell.runs) for cell in cells)
    if not planned:
        return Finding(claim, "not examined", "Its runs were not asked for.")
    names = ", ".join(dict.fromkeys(f"{cell.experiment.id} ({cell.variant})" for cell in cells if cell.runs))
    lost = sum(len(cell.with_status("diverged")) for cell in cells)
    if lost:
        return Finding(claim, "not examined", f"{names}: {lost} of {planned} diverged and none finished.")
    return Finding(claim, "not examined", f"{names}: none of {planned} runs has finished.")


def _margins(noises: set[str], among: int) -> str:
    together = f" for all {among} together" if among > 1 else ""
    return f" Margins at 95 %{together}: {' and '.join(sorted(noises))}."


def _joined(verdicts: list[Verdict]) -> Verdict:
    """What the clear ones say, if they agree; what is within noise decides only where nothing is clear."""
    clear = {verdict for verdict in verdicts if verdict != "within noise"}
    return "within noise" if not clear else clear.pop() if len(clear) == 1 else "mixed"
