"""The report's claims, and by rule what these runs say of each: pure functions of the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evonorm.lab.experiments import VARIANTS
from evonorm.lab.report.comparison import Cell, Comparison, percent, summarize
from evonorm.lab.report.evidence import REPORT_STEPS, difference, enough_steps, stale_averages, steps

Verdict = Literal["supported", "contradicted", "mixed", "within noise", "too little budget to tell", "not examined"]

# Training accuracy this far above validation accuracy, at the last epoch, is called overfitting ...
OVERFIT_GAP = 0.10
# ... if the validation loss has also risen this far above its lowest.
OVERFIT_RISE = 1.10
# A training is called balanced if the two accuracies end this close.
BALANCED_GAP = 0.05


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


def sections(comparison: Comparison) -> tuple[Section, ...]:
    """The report's sections in its order, with what these runs show."""
    s0, s0_aug = ("s0-g8", "s0-g16", "s0-g32"), ("s0-g8-aug", "s0-g16-aug", "s0-g32-aug")
    return (
        Section(
            "bn-adam", "Adam, BN-ReLU, no augmentation", ("bn-relu-adam",), (_overfits(comparison, "bn-relu-adam"),)
        ),
        Section("bn-sgd", "SGD, BN-ReLU, no augmentation", ("bn-relu-sgd",), (_overfits(comparison, "bn-relu-sgd"),)),
        Section("bn-aug", "SGD, BN-ReLU, augmentation", ("bn-relu-sgd-aug",), (_balanced(comparison),)),
        Section(
            "b0",
            "EvoNorm-B0",
            ("b0", "b0-aug"),
            (
                _against_bn(comparison, "EvoNorm-B0 ends below BN-ReLU (75.7 against 84.3 %).", ("b0",), "bn-relu-sgd"),
                _not_a_number(comparison, "With augmentation, EvoNorm-B0's loss is NaN.", ("b0-aug",)),
            ),
        ),
        Section(
            "s0",
            "EvoNorm-S0, groups 8, 16, 32",
            (*s0, *s0_aug),
            (
                _against_bn(
                    comparison, "EvoNorm-S0 ends below BN-ReLU (76.0 and 74.8 against 84.3 %).", s0, "bn-relu-sgd"
                ),
                _groups_alike(comparison, s0),
                _not_a_number(
                    comparison, "The loss is NaN with 32 groups, and with augmentation always.", ("s0-g32", *s0_aug)
                ),
            ),
        ),
        Section(
            "sweep",
            "Hyperparameter sweep",
            (),
            (
                Finding(
                    "Adam is the most promising optimizer; the learning rate matters much, groups little.",
                    "not examined",
                    "These runs hold one learning rate an optimizer; no sweep is among them. In the report the sweep "
                    "maximized training accuracy, and its groups never reached the layer.",
                ),
            ),
        ),
        Section(
            "conclusion",
            "Conclusion",
            (),
            (
                _against_bn(
                    comparison, "EvoNorm cannot match BN-ReLU, without augmentation.", ("b0", *s0), "bn-relu-sgd"
                ),
                _against_bn(
                    comparison,
                    "EvoNorm cannot match BN-ReLU, with augmentation.",
                    ("b0-aug", *s0_aug),
                    "bn-relu-sgd-aug",
                ),
                _identity_matters(comparison),
            ),
        ),
    )


def _overfits(comparison: Comparison, id: str) -> Finding:
    claim = "The network overfits: training goes on improving while the validation loss fluctuates and rises."
    cell = (
        comparison.cell(id, "intended") if comparison.cell(id, "intended").records else comparison.cell(id, "published")
    )
    gap = _gap(cell)
    if gap is None:
        return _missing(claim, cell)
    rises = []
    for record in cell.with_status("finished"):
        losses = [float(epoch["val_loss"]) for epoch in record.metrics if epoch["val_loss"] is not None]
        rises.append(losses[-1] / min(losses) if losses and min(losses) > 0 else 1.0)
    rise = sum(rises) / len(rises)
    text = (
        f"{_accuracies(cell)} The validation loss ends at {rise:.2f} times its lowest. "
        f"Called overfitting from a gap of {100 * OVERFIT_GAP:.0f} points and a rise to {OVERFIT_RISE:.2f} times."
    )
    seen = gap > OVERFIT_GAP and rise > OVERFIT_RISE
    return _with_budget(claim, "supported" if seen else "contradicted", text, [cell])


def _balanced(comparison: Comparison) -> Finding:
    claim = "With augmentation the training is balanced: training and validation stay close."
    cell = comparison.cell("bn-relu-sgd-aug", "intended")
    gap = _gap(cell)
    if gap is None:
        return _missing(claim, cell)
    text = f"{_accuracies(cell)} Called balanced up to a gap of {100 * BALANCED_GAP:.0f} points."
    return _with_budget(claim, "supported" if abs(gap) <= BALANCED_GAP else "contradicted", text, [cell])


def _against_bn(comparison: Comparison, claim: str, ids: tuple[str, ...], rival: str) -> Finding:
    baseline = comparison.cell(rival, "intended")
    cells = [comparison.cell(id, "intended") for id in ids]
    told: list[str] = []
    verdicts: list[Verdict] = []
    noises = set()
    for cell in cells:
        found = difference(cell, baseline)
        lost = len(cell.with_status("diverged"))
        if lost:
            told.append(f"{cell.experiment.id}: {lost} of {len(cell.records)} diverged")
            verdicts.append("supported")
        if found is not None:
            accuracy = percent(summarize(cell.last("val_accuracy")))
            told.append(f"{cell.experiment.id} {accuracy} % ({found})")
            noises.add(found.noise)
            verdicts.append(("supported" if found.value < 0 else "contradicted") if found.clear else "within noise")
    if not verdicts:
        return _missing(claim, *cells, baseline)
    text = (
        f"As intended, against {rival}'s {percent(summarize(baseline.last('val_accuracy'))) or 'none'} %: "
        f"{'; '.join(told)}. Margins: {', '.join(sorted(noises)) or 'none'}."
    )
    if stale_averages(comparison):
        text += " BN-ReLU's figure suffers from its running averages, see the top of the page."
    return _with_budget(claim, _joined(verdicts), text, [*cells, baseline])


def _groups_alike(comparison: Comparison, ids: tuple[str, ...]) -> Finding:
    claim = "The number of groups matters little."
    cells = [comparison.cell(id, "intended") for id in ids]
    pairs = [(a, b, difference(a, b)) for place, a in enumerate(cells) for b in cells[place + 1 :]]
    known = [(a, b, found) for a, b, found in pairs if found is not None]
    if not known:
        return _missing(claim, *cells)
    told = "; ".join(f"{a.experiment.id} against {b.experiment.id} {found}" for a, b, found in known)
    clear = [found for _, _, found in known if found.clear]
    text = (
        f"As intended: {told}. In the report these three were one and the same function, so its differences are the "
        "noise between runs."
    )
    return _with_budget(claim, "contradicted" if clear else "within noise", text, cells)


def _not_a_number(comparison: Comparison, claim: str, ids: tuple[str, ...]) -> Finding:
    told: list[str] = []
    verdicts: list[Verdict] = []
    cells: list[Cell] = []
    meanings = {"published": "with the identities that the report's code ran", "intended": "as defined"}
    for variant in VARIANTS:
        meaning = meanings[variant]
        these = [comparison.cell(id, variant) for id in ids]
        cells += these
        runs = {record.name: record for cell in these for record in cell.records if record.status != "running"}
        if not runs:
            continue
        lost = [record for record in runs.values() if record.status == "diverged"]
        told.append(f"{meaning}, {len(lost)} of {len(runs)} runs diverged")
        verdicts.append("supported" if lost else "contradicted")
    if not told:
        return _missing(claim, *cells)
    text = "; ".join(told)
    text = text[0].upper() + text[1:] + ". Both stop at the first loss or gradient that is not finite."
    # One divergence is enough to show that it happens; that it does not takes the whole training.
    verdict = _joined(verdicts)
    return Finding(claim, verdict, text) if "supported" in verdicts else _with_budget(claim, verdict, text, cells)


def _identity_matters(comparison: Comparison) -> Finding:
    claim = "What the report called EvoNorm was the identity. (Our finding, not a claim of the report.)"
    told: list[str] = []
    verdicts: list[Verdict] = []
    cells: list[Cell] = []
    for id in ("b0", "s0-g8", "s0-g16", "s0-g32"):
        intended, published = comparison.cell(id, "intended"), comparison.cell(id, "published")
        found = difference(intended, published)
        if found is not None:
            cells += [intended, published]
            told.append(f"{id} {found}")
            verdicts.append("supported" if found.clear else "within noise")
    if not told:
        return Finding(claim, "not examined", "It takes both variants, published and intended, to compare them.")
    identity = percent(summarize(comparison.cell("b0", "published").last("val_accuracy")))
    lead = f"The layers as defined, against the identity's {identity} %: " if identity else "Against the identity: "
    text = lead + "; ".join(told) + "."
    if not any(verdict == "supported" for verdict in verdicts):
        text += " At this budget the layers and no layer at all cannot be told apart."
    return _with_budget(claim, _joined(verdicts), text, cells)


def _with_budget(claim: str, verdict: Verdict, text: str, cells: list[Cell]) -> Finding:
    if enough_steps(cells):
        return Finding(claim, verdict, text)
    shortest = min((steps(r.config, r.dataset) for cell in cells for r in cell.records), default=0)
    seen = "" if verdict == "within noise" else f" Within this budget it looks {verdict}."
    return Finding(
        claim,
        "too little budget to tell",
        f"{text}{seen} But the report speaks of {REPORT_STEPS:,} steps, and the shortest run here has {shortest:,}.",
    )


def _missing(claim: str, *cells: Cell) -> Finding:
    planned = sum(len(cell.runs) for cell in cells)
    lost = sum(len(cell.with_status("diverged")) for cell in cells)
    if lost:
        return Finding(claim, "not examined", f"{lost} of {planned} runs diverged, so there are no figures to compare.")
    why = f"None of its {planned} runs has finished." if planned else "Its runs were not asked for."
    return Finding(claim, "not examined", why)


def _gap(cell: Cell) -> float | None:
    train, validation = summarize(cell.last("train_accuracy")), summarize(cell.last("val_accuracy"))
    return None if train is None or validation is None else train.mean - validation.mean


def _accuracies(cell: Cell) -> str:
    train, validation = summarize(cell.last("train_accuracy")), summarize(cell.last("val_accuracy"))
    gap = (train.mean if train else 0.0) - (validation.mean if validation else 0.0)
    return (
        f"{cell.experiment.id} ends at {percent(train)} % training and {percent(validation)} % validation accuracy, "
        f"a gap of {100 * gap:+.1f} points."
    )


def _joined(verdicts: list[Verdict]) -> Verdict:
    kinds = set(verdicts)
    return verdicts[0] if len(kinds) == 1 else "mixed"
