"""The report's comparison as an experiment: its runs, each as published and as intended; see records.report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evonorm.lab.experiments.experiment import FULL, REPORT_BATCH_SIZE, Axis, Budget, Cell, Experiment, Images, of
from evonorm.lab.records.report import REPORT_RUNS, VARIANTS
from evonorm.lab.training.config import TrainConfig

# The report's augmented runs called `flow` without a batch size and got its default.
FLOW_BATCH_SIZE = 32


_BY_ID = {run.id: run for run in REPORT_RUNS}


def _id(value: str) -> str:
    if value not in _BY_ID:
        raise ValueError(f"no experiment is called {value!r}; choose from {', '.join(_BY_ID)}")
    return value


def _variant(value: str) -> str:
    if value not in VARIANTS:
        raise ValueError(f"variant must be of {', '.join(VARIANTS)}, both: got {value!r}")
    return value


def _config(cell: Cell, budget: Budget, images: Images) -> TrainConfig:
    """Published runs that differ only in the name of a layer that never ran come out as one configuration."""
    run, variant = _BY_ID[cell["experiment"]], cell["variant"]
    bn = run.layer == "bn-relu"
    faulty = variant == "published" and run.augment
    return budget.config(
        cell,
        layer=run.layer if bn or variant == "intended" else "none",
        groups=run.groups,
        # Keras' BatchNormalization: epsilon 1e-3, momentum 0.99. The EvoNorms: their own defaults.
        norm_eps=1e-3 if bn else None,
        norm_momentum=0.01 if bn else 0.1,
        optimizer=run.optimizer,
        batch_size=FLOW_BATCH_SIZE if faulty else REPORT_BATCH_SIZE,
        steps_per_epoch=max(1, images.train // REPORT_BATCH_SIZE) if faulty else None,
        augment=run.augment,
        validation_images=max(1, images.test // REPORT_BATCH_SIZE) * FLOW_BATCH_SIZE if faulty else None,
    )


def _label(cells: Sequence[Mapping[str, Any]]) -> str:
    """The report's runs that a run stands for, a word each."""
    served: dict[str, set[str]] = {}
    for cell in cells:
        served.setdefault(cell["experiment"], set()).add(cell["variant"])
    return ", ".join(f"{id}{'' if len(variants) == 2 else f' ({min(variants)})'}" for id, variants in served.items())


EXPERIMENT = Experiment(
    "report",
    title="EvoNorm against BatchNorm-ReLU: the report's comparison, run again",
    what="the report's comparison",
    question="the report's runs, as published (its EvoNorm layers were identities) and as intended",
    axes=(
        Axis("experiment", of(*_BY_ID), option="only", known=_id),
        Axis("variant", of(*VARIANTS), option="variant", every="both", known=_variant),
    ),
    budgets=(
        Budget("quick", 2, 2_560, 1_000, "a first look: ten minutes on two cores"),
        Budget("hour", 3, 12_800, 2_560, "about an hour a seed on two cores"),
        FULL,
    ),
    config=_config,
    lane="variant",
    seeds=(0,),
    label=_label,
    listing="comparison",
)
