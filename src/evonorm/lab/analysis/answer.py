"""The page in a few sentences, worded by rule from the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from evonorm.lab.analysis import claims, outcomes, recorded
from evonorm.lab.analysis.comparison import Comparison, percent, summarize
from evonorm.lab.analysis.verdicts import Finding
from evonorm.lab.records.report import REPORT_RUNS


def sentences(comparison: Comparison, sections: Sequence[claims.Section]) -> list[str]:
    """The answer, with its budget, its seeds and how the runs ended; a paragraph each."""
    if not sections:
        return []
    plain, augmented, identities = sections[-1].findings
    told = [_setting(comparison)]
    for how, finding, rival in (("Without", plain, "bn-relu-sgd"), ("With", augmented, "bn-relu-sgd-aug")):
        reference = percent(summarize(comparison.cell(rival, "intended").last()), " %")
        told.append(f"{how} augmentation{f' (BN-ReLU {reference})' if reference else ''}: {_said(finding)}")
    told += [_said(identities)] if identities.verdict != "not examined" else []
    if "too little budget to tell" in (plain.verdict, augmented.verdict):
        told.append("That is too little training to confirm or refute the report, which trained for 60 epochs.")
    return [*told, _ended(comparison)]


def _setting(comparison: Comparison) -> str:
    seeds = comparison.seeds
    counted = "one seed (n = 1)" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    data = comparison.dataset.get("name", "data of no name")
    return f"Validation accuracy after {comparison.epochs} epochs with SGD on {data}, {counted}:"


def _said(finding: Finding) -> str:
    """The answer, and which runs it still waits for."""
    return f"{finding.answer} {finding.still_open}".strip()


def _ended(comparison: Comparison) -> str:
    """How the comparison's runs ended, each counted once, and what the report saw."""
    text = f"Of the {len(comparison.runs)} runs here {outcomes.counted(comparison.runs)}"
    lost = comparison.with_status("diverged")
    identities = sum(record.config.get("layer") == "none" for record in lost)
    which = "all" if identities == len(lost) else f"{identities} of the {len(lost)}"
    text += f"; {which} that diverged trained identities" if identities else ""
    nan = sum(None in experiment.recorded for experiment in REPORT_RUNS)
    if recorded.is_cifar10(comparison.dataset):
        text += f". The report's own count is another: of its {len(REPORT_RUNS)} experiments {nan} ended in a NaN loss"
    return f"{text}."
