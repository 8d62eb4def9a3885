"""The report's claims, and by rule what these runs say of each: pure functions of the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from evonorm.lab.analysis import against, evidence, outcomes, recorded
from evonorm.lab.analysis.comparison import Cell, Comparison, percent, summarize
from evonorm.lab.analysis.evidence import Difference
from evonorm.lab.analysis.verdicts import Finding, Leaning, joined, judged, margins, missing, seeds_told, standing
from evonorm.lab.records.report import VARIANTS, Variant
from evonorm.lab.records.run_files import Record

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
class Section:
    """A section of the report: its title, the experiments it is about, and its findings."""

    anchor: str
    title: str
    experiments: tuple[str, ...]
    findings: tuple[Finding, ...]


def sections(runs: Comparison) -> tuple[Section, ...]:
    """The report's sections in its order, with what these runs show."""
    adam, sgd, augmented = "bn-relu-adam", "bn-relu-sgd", "bn-relu-sgd-aug"
    comparable = recorded.is_cifar10(runs.dataset)
    b0_told, s0_told = (f" ({told} against 84.3 %)" * comparable for told in ("75.7", "76.0 and 74.8"))
    b0 = (
        against.against_bn(runs, f"EvoNorm-B0 ends below BN-ReLU{b0_told}.", ("b0",), sgd),
        _not_a_number(runs, "With augmentation, EvoNorm-B0's loss is NaN.", ("b0-aug",)),
    )
    s0 = (
        against.against_bn(runs, f"EvoNorm-S0 ends below BN-ReLU{s0_told}.", S0, sgd),
        _groups_alike(runs),
        _not_a_number(runs, "The loss is NaN with 32 groups, and with augmentation always.", ("s0-g32", *S0_AUG)),
    )
    sweep = Finding(
        "Adam is the most promising optimizer; the learning rate matters much, groups little.",
        "not examined",
        "These runs hold one learning rate an optimizer; no sweep is among them.",
        "In the report the sweep maximized training accuracy, and its groups never reached the layer.",
    )
    conclusion = (
        against.against_bn(runs, "EvoNorm cannot match BN-ReLU, without augmentation.", ("b0", *S0), sgd),
        against.against_bn(runs, "EvoNorm cannot match BN-ReLU, with augmentation.", ("b0-aug", *S0_AUG), augmented),
        _identity_matters(runs),
    )
    overfits = _overfits(runs, adam, "The network clearly overfits.")
    overfits_too = _overfits(runs, sgd, "With SGD in Adam's place it still overfits.")
    return (
        Section("bn-adam", "Adam, BN-ReLU, no augmentation", (adam,), (_fluctuates(runs, adam), overfits)),
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
            return missing(claim, cell)
        return Finding(
            claim, "too little budget to tell", "The runs are too short to tell fluctuation from progress.", ""
        )
    answer = f"It changes from epoch to epoch by {100 * share:.0f} % of its level, {_seeds(cell)}."
    text = f"Standard deviation of the changes in the second half of {id}; from {100 * FLUCTUATION:.0f} % on that is "
    text += "called a lot."
    return _of_cell(claim, share >= FLUCTUATION, answer, text, cell)


def _overfits(runs: Comparison, id: str, claim: str) -> Finding:
    cell = _either(runs, id)
    gap, rise = evidence.gap(cell), evidence.rise(cell)
    if gap is None or rise is None:
        return missing(claim, cell)
    answer = _gap_told(gap, cell)
    text = f"{id} ends at {evidence.accuracies(cell)}, and its validation loss "
    text += f"at {rise:.2f} times its lowest. Called overfitting from a gap of {100 * OVERFIT_GAP:.0f} points and a "
    text += f"rise to {OVERFIT_RISE:.2f} times."
    return _of_cell(claim, gap > OVERFIT_GAP and rise > OVERFIT_RISE, answer, text, cell)


def _balanced(runs: Comparison, id: str) -> Finding:
    claim = "With augmentation the training is balanced: training and validation stay close."
    cell = _either(runs, id)
    gap = evidence.gap(cell)
    if gap is None:
        return missing(claim, cell)
    answer = _gap_told(gap, cell)
    text = f"{id} ({cell.variant}) ends at {evidence.accuracies(cell)}. Called "
    text += f"balanced up to {100 * BALANCED_GAP:.0f} points."
    return _of_cell(claim, abs(gap) <= BALANCED_GAP, answer, text, cell)


def _gap_told(gap: float, cell: Cell) -> str:
    where = "above" if gap >= 0 else "below"
    return f"Training accuracy ends {100 * abs(gap):.1f} points {where} validation accuracy, {_seeds(cell)}."


def _of_cell(claim: str, holds: bool, answer: str, text: str, cell: Cell) -> Finding:
    leaning: Leaning = "holds" if holds else "does not hold"
    return judged(claim, leaning, answer, text, [cell], seeds=len(cell.with_status("finished")))


def _groups_alike(runs: Comparison) -> Finding:
    claim = "The number of groups matters little."
    cells = [runs.cell(id, "intended") for id in S0]
    pairs = [(a, b) for a, b in combinations(cells, 2) if a.last() and b.last()]
    found = [(a, b, evidence.difference(a, b, among=len(pairs))) for a, b in pairs]
    known = [(a, b, difference) for a, b, difference in found if difference is not None]
    if not known:
        return missing(claim, *cells)
    told = "; ".join(f"{a.experiment.id} against {b.experiment.id} {difference}" for a, b, difference in known)
    text = f"As intended: {told}.{margins({difference.noise for _, _, difference in known}, len(pairs))} In the "
    text += "report these three were one and the same function, so its differences are the noise between runs."
    widest = max(abs(difference.value) for _, _, difference in known)
    clearest = max((difference for _, _, difference in known), key=lambda found: (found.clear, abs(found.value)))
    compared = {cell.experiment.id: cell for a, b, _ in known for cell in (a, b)}
    answer = f"{_number(len(compared))} numbers of groups end at most {100 * widest:.1f} points apart, "
    answer += f"{standing(clearest, list(compared.values()))}."
    clear, seeds = clearest.clear, min(difference.seeds for _, _, difference in known)
    return judged(claim, "does not hold" if clear else "within noise", answer, text, cells, seeds=seeds)


def _number(count: int) -> str:
    return {2: "Two", 3: "Three"}.get(count, str(count))


def _not_a_number(runs: Comparison, claim: str, ids: Sequence[str]) -> Finding:
    told: list[str] = []
    leanings: list[Leaning] = []
    cells = [runs.cell(id, variant) for variant in VARIANTS for id in ids if runs.cell(id, variant).runs]
    meanings = {"published": "The identities that the report's code ran", "intended": "The layers as defined"}
    seeds = []
    for variant, meaning in meanings.items():
        these = _once(cell for cell in cells if cell.variant == variant)
        ended = [record for record in these if outcomes.state(record) in ("finished", "diverged")]
        if not these:
            continue
        lost = sum(outcomes.state(record) == "diverged" for record in ended)
        runs_told = f"{evidence.rate(lost, len(ended))} diverged" if len(ended) == len(these) else ""
        told.append(f"{meaning}: {runs_told or outcomes.counted(these)}.")
        if ended:
            leanings.append("does not hold" if not lost else "holds" if lost == len(ended) else "mixed")
            seeds.append(min(len(cell.runs) for cell in cells if cell.variant == variant))
    if not leanings:
        return missing(claim, *cells)
    text = "A run counts as diverged at its first loss or gradient that is not finite."
    # One divergence is enough to show that it happens; that it does not takes the whole training.
    shown = set(leanings) != {"does not hold"}
    return judged(claim, joined(leanings), " ".join(told), text, cells, seeds=min(seeds), shown=shown)


def _once(cells: Iterable[Cell]) -> list[Record | None]:
    """The cells' runs, each once though entries share them; None for each that is not there."""
    named: dict[object, Record | None] = {}
    for cell in cells:
        for seed, record in cell.runs.items():
            named[record.name if record is not None else (cell.experiment.id, seed)] = record
    return list(named.values())


def _identity_matters(runs: Comparison) -> Finding:
    claim = "The layers train otherwise than the identities that ran in their place (our question, not the report's)."
    intended = [runs.cell(id, "intended") for id in ("b0", *S0)]
    identity = runs.cell("b0", "published")
    pairs = [(cell, runs.cell(cell.experiment.id, "published")) for cell in intended]
    pairs = [(a, b) for a, b in pairs if a.last() and b.last()]
    trained = sum(len(cell.with_status("finished")) for cell in intended)
    lost = identity.with_status("diverged")
    found = [(a, evidence.difference(a, b, among=len(pairs))) for a, b in pairs]
    known = [(cell, difference) for cell, difference in found if difference is not None]
    if not known and not (lost and trained):
        cells = [cell for cell in (identity, *intended) if not cell.last()]
        return missing(claim, *cells)
    answer, leanings = [], [_otherwise(difference) for _, difference in known]
    text, seeds = "", [difference.seeds for _, difference in known]
    if lost:
        leanings.append("holds")
        seeds.append(len(identity.runs))
        layers = sum(len(cell.with_status("diverged")) for cell in intended)
        ran = sum(len(cell.records) for cell in intended)
        answer.append(
            f"Without augmentation the identity: {against.rate(identity)}; the layers as defined: {layers} of {ran} "
            f"diverged, {trained} finished."
        )
    if known:
        accuracy = percent(summarize(identity.last()), " %")
        values = [difference.value for _, difference in known]
        span = f"{evidence.points(min(values))} to {evidence.points(max(values))}"
        count = min(difference.seeds for _, difference in known)
        beyond = sum(difference.clear for _, difference in known)
        answer.append(
            f"The layers end {span} points from the identity's {accuracy}, {seeds_told(count)}; "
            f"{beyond} of {len(known)} beyond the margin."
        )
        text = "; ".join(f"{cell.experiment.id} {difference}" for cell, difference in known) + "."
        text += margins({difference.noise for _, difference in known}, len(pairs))
    more = runs.repetitions(identity)
    if more:
        also = sum(record.status == "diverged" for record in more)
        total = f"{len(lost) + also} of {len(identity.records) + len(more)} diverged so far"
        answer.append(
            f"With the {len(more)} of other seeds that this folder holds beside ({outcomes.counted(more)}): {total}."
        )
        text += f" Beside the comparison's list: {'; '.join(f'{r.name} ({outcomes.end(r)})' for r in more)}."
    cells = [*intended, identity]
    return judged(claim, joined(leanings), " ".join(answer), text.strip(), cells, seeds=min(seeds))


def _otherwise(difference: Difference) -> Leaning:
    return "holds" if difference.clear else "within noise"


def _either(runs: Comparison, id: str) -> Cell:
    """The cell as intended where it was run, else as published."""
    variants: tuple[Variant, ...] = ("intended", "published")
    return next((runs.cell(id, v) for v in variants if runs.cell(id, v).records), runs.cell(id, "intended"))


def _seeds(cell: Cell) -> str:
    return seeds_told(len(cell.with_status("finished")))
