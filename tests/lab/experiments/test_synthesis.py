"""The synthesis experiment: its cells and configurations, and what its page says of distances, which are best low."""

from __future__ import annotations

from pathlib import Path

import pytest

from evonorm.lab.experiments.experiment import Images
from evonorm.lab.experiments.synthesis import EXPERIMENT
from evonorm.lab.pages import experiment_page, page
from evonorm.lab.records import run_files
from evonorm.lab.training import tasks
from evonorm.lab.training.training import name_of
from tests.lab import listed

NAME = "synthesis-hour-0123456789abcdef.json"
LAYERS = ["bn-relu", "gn-relu", "evonorm-b0", "evonorm-s0"]


@pytest.mark.parametrize("budget", EXPERIMENT.budgets, ids=lambda budget: budget.name)
def test_cells_are_layers_by_seeds(budget) -> None:
    cells = [*EXPERIMENT.cells()]
    assert [cell["layer"] for cell in cells] == LAYERS * 2
    configs = [EXPERIMENT.config(cell, budget, Images(50_000, 10_000)) for cell in cells]
    assert {config.task for config in configs} == {tasks.SYNTHESIS}
    assert {config.options for config in configs} == {configs[0].options}
    assert len({name_of(config, "0123456789abcdef") for config in configs}) == 8


def test_the_full_budget_is_the_public_scripts() -> None:
    (config, *_) = (
        EXPERIMENT.config(cell, EXPERIMENT.budget("full"), Images(50_000, 10_000)) for cell in EXPERIMENT.cells()
    )
    own = config.options
    assert (config.epochs, config.batch_size, config.learning_rate, config.train_images) == (500, 50, 2e-4, None)
    assert (own.width, own.generator_every, own.average, own.generator_rate) == (64, 4, 0.9999, None)


def made(folder: Path, distances: dict[str, float]) -> Path:
    entries = []
    for layer, distance in distances.items():
        for seed in (0, 1):
            run = f"{layer}-{seed}"
            entries.append({"layer": layer, "seed": seed, "run": run})
            (folder / run).mkdir(parents=True)
            config = {"task": "synthesis", "model": "biggan", "layer": layer, "seeds": {"model": seed}, "epochs": 1}
            run_files.write_json(folder / run / "config.json", {"config": config, "dataset": {"train_images": 1000}})
            epoch = {"epoch": 1, "train_loss": 1.0, "train_generator_loss": 0.5, "val_score": 3.0}
            epoch |= {"val_distance": distance + seed / 100, "images_per_second": 100.0}
            run_files.append_metrics(folder / run, epoch)
            run_files.write_json(folder / run / "summary.json", {"status": "finished", "seconds": 1.0})
    listed.write(folder / NAME, entries)
    return folder


def test_the_page_takes_the_lowest_distance_for_the_best(tmp_path: Path) -> None:
    folder = made(tmp_path, dict(zip(LAYERS, (5.0, 9.0, 7.0, 6.0), strict=True)))
    found = EXPERIMENT.analyse(experiment_page.read(folder / NAME)[1])
    assert [(one.question, one.answer) for one in found.findings] == [("Which layer is best?", "bn-relu")]
    by_layer = dict(zip(found.tables[0].header[1:], found.tables[0].rows[0][1:], strict=True))
    assert by_layer["bn-relu"] == "5.005 (5 to 5.01, n=2)"
    assert by_layer["gn-relu"] == "9.005 (9 to 9.01, n=2)"
    text = page.render(folder)
    assert "Which layer is best?" in text
    figures = [table.caption for table in found.tables] + [panel.title for panel in found.panels] + [found.method]
    assert all("not comparable with published FID" in words for words in figures)
