"""The batch-size experiment's rules on made-up runs whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evonorm.lab.analysis.batch_size import analysis
from evonorm.lab.analysis.findings import Finding
from evonorm.lab.pages import experiment_page, page
from evonorm.lab.records import run_files
from tests.lab import listed

NAME = "batch-size-hour-0123456789abcdef.json"


def made(folder: Path, truth: Callable[[str, int], float], *, sizes: tuple[int, ...] = (2, 4, 128)) -> Path:
    """Two seeds of each run, 0.4 points apart."""
    entries = []
    for layer in ("bn-relu", "evonorm-s0"):
        for size in sizes:
            for seed in (0, 1):
                run = f"{layer}-{size}-{seed}"
                entries.append({"layer": layer, "batch_size": size, "seed": seed, "run": run})
                config = {"layer": layer, "batch_size": size, "seeds": {"model": seed}}
                (folder / run).mkdir(parents=True)
                run_files.write_json(folder / run / "config.json", {"config": config, "dataset": {}})
                losses = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0}
                accuracy = truth(layer, size) + 0.004 * seed
                run_files.append_metrics(folder / run, {"epoch": 1, **losses, "val_accuracy": accuracy})
                run_files.write_json(folder / run / "summary.json", {"status": "finished", "seconds": 1.0})
    listed.write(folder / NAME, entries)
    return folder


def findings(folder: Path) -> list[Finding]:
    return list(analysis(experiment_page.read(folder / NAME)[1]).findings)


def plain(layer: str, size: int) -> float:
    """BatchNorm falls by 10 points at 2 images and loses to S0 there, which only gains as batches shrink."""
    if layer == "bn-relu":
        return 0.4 if size == 2 else 0.5
    return {2: 0.45, 4: 0.45}.get(size, 0.3)


def test_the_smallest_is_held_to_the_largest_and_to_its_neighbour(tmp_path: Path) -> None:
    told = {finding.question: finding.answer for finding in findings(made(tmp_path, plain))}
    assert told == {
        "What does a batch of 2 cost, against one of 128, at equal epochs?": "bn-relu loses, evonorm-s0 gains",
        "What does a batch of 2 cost, against one of 4, at equal epochs?": "bn-relu loses",
        "Which layer is best with a batch of 2?": "evonorm-s0",
        "Which layer is best with a batch of 128?": "bn-relu",
    }


def test_two_sizes_make_one_comparison(tmp_path: Path) -> None:
    questions = [f.question for f in findings(made(tmp_path, plain, sizes=(4, 128)))]
    assert sum(question.startswith("What does a batch of 4 cost") for question in questions) == 1
    assert len(questions) == 3


def test_what_noise_covers_is_not_told_apart(tmp_path: Path) -> None:
    """All alike: no loss, no winner."""
    told = findings(made(tmp_path, lambda layer, size: 0.4))
    assert [finding.answer for finding in told] == [
        "nothing that can be told from noise",
        "nothing that can be told from noise",
        "no winner: bn-relu and evonorm-s0 cannot be told apart",
        "no winner: bn-relu and evonorm-s0 cannot be told apart",
    ]


def test_one_size_has_no_cost(tmp_path: Path) -> None:
    made(tmp_path / "runs", plain, sizes=(4,))
    assert [f.question for f in findings(tmp_path / "runs")] == ["Which layer is best with a batch of 4?"]
    page.write(tmp_path / "runs", tmp_path / "page.html")
