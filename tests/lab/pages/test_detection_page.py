"""The detection experiment: what it runs, and what its page says by rule of made-up runs whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evonorm.lab.analysis.detection import FROZEN
from evonorm.lab.errors import UserError
from evonorm.lab.experiments import detection
from evonorm.lab.experiments.experiment import Budget, Images
from evonorm.lab.pages import experiment_page, page
from evonorm.lab.records import pictures, run_files
from evonorm.lab.training.training import check
from tests.lab import listed
from tests.lab.pages.test_report import text_of

NAME = "detection-quick-0123456789abcdef.json"
EXPERIMENT = detection.EXPERIMENT


@pytest.mark.parametrize("budget", EXPERIMENT.budgets, ids=lambda one: one.name)
def test_its_runs_can_be_trained(budget: Budget) -> None:
    cells = list(EXPERIMENT.cells())
    assert len(cells) == 5 * 2 * 2
    configs = [EXPERIMENT.config(cell, budget, Images(1600, 200)) for cell in cells]
    assert len(set(configs)) == len(configs)
    for cell, config in zip(cells, configs, strict=True):
        assert config.learning_rate / config.batch_size == configs[0].learning_rate / configs[0].batch_size
        assert config.options.freeze_norms is (cell["layer"] == FROZEN)
        assert config.model == (detection.LARGE if budget.name == "full" else detection.SMALL)
    check(replace(configs[0], task=EXPERIMENT.task))


def test_layers_are_asked_for_by_name() -> None:
    cells = list(EXPERIMENT.cells({"layer": [FROZEN, "frn-tlu"], "batch_size": [1]}, [0]))
    assert [cell["layer"] for cell in cells] == [FROZEN, "frn-tlu"]
    with pytest.raises(UserError, match="no layer is called 'bn-relu-froze'"):
        list(EXPERIMENT.cells({"layer": ["bn-relu-froze"]}))
    with pytest.raises(UserError, match="batch sizes must be at least 1: got 0"):
        list(EXPERIMENT.cells({"batch_size": [0]}))


def made(folder: Path, truth: Callable[[str, int], float], layers: tuple[str, ...]) -> Path:
    """Two seeds of each run, 0.4 points of mask AP apart."""
    entries = []
    for layer in layers:
        for size in (1, 2):
            for seed in (0, 1):
                run = f"{layer}-{size}-{seed}"
                entries.append({"layer": layer, "batch_size": size, "seed": seed, "run": run})
                frozen = layer == FROZEN
                config = {
                    "task": "detection",
                    "layer": "bn-relu" if frozen else layer,
                    "options": {"freeze_norms": frozen},
                }
                config |= {"batch_size": size, "seeds": {"model": seed}}
                (folder / run).mkdir(parents=True)
                run_files.write_json(folder / run / "config.json", {"config": config, "dataset": {}})
                value = truth(layer, size) + 0.004 * seed
                validated = {"val_loss": 1.0, "val_box_ap": 0.9, "val_box_ap50": 0.8, "val_mask_ap50": 0.7}
                epoch = {"epoch": 1, "train_loss": 1.0, **validated, "val_mask_ap": value, "images_per_second": 5.0}
                run_files.append_metrics(folder / run, epoch)
                run_files.write_json(folder / run / "summary.json", {"status": "finished", "seconds": 1.0})
    listed.write(folder / NAME, entries)
    return folder


def truth(layer: str, size: int) -> float:
    """BatchNorm halves with one picture a batch, S0 does not."""
    return {"bn-relu": 0.2 if size == 1 else 0.4, FROZEN: 0.1}.get(layer, 0.3)


def test_what_a_batch_of_one_costs_is_said_of_mask_ap(tmp_path: Path) -> None:
    folder = made(tmp_path, truth, (FROZEN, "bn-relu", "evonorm-s0"))
    experiment, found = experiment_page.read(folder / NAME)
    told = experiment.analyse(found)
    assert {finding.question: finding.answer for finding in told.findings} == {
        "What does a batch of 1 cost, against one of 2, at equal epochs?": "bn-relu loses",
        "Which layer is best with a batch of 1?": "evonorm-s0",
        "Which layer is best with a batch of 2?": "bn-relu",
    }
    assert "bn-relu -20.0" in told.findings[0].text
    assert "statistics of the untrained network" in told.caveat
    table = told.tables[-1]
    assert table.header[3:] == ("loss", "box AP", "box AP50", "mask AP", "mask AP50", "pictures/s")
    assert {row[:2]: row[3:] for row in table.rows}[FROZEN, "1"] == ("1", "90.0", "80.0", "10.2", "70.0", "5.0")


def test_the_page_shows_what_the_first_seeds_found_and_credits_its_network(tmp_path: Path) -> None:
    folder = made(tmp_path, truth, ("bn-relu", "evonorm-s0"))
    for run in ("bn-relu-1-0", "bn-relu-1-1"):
        pictures.write(folder / run, "detections", 3, np.zeros((4, 4, 3), np.uint8), f"Found by {run}")
    html = page.render(folder, comparison=NAME)
    assert html.count('<img src="data:image/png') == 1
    assert "Found by bn-relu-1-0" in html
    text = text_of(html)
    assert "Mask R-CNN" in text
    assert "Mini Inception" not in text
    assert "not what freezing" not in text
