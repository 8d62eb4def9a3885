"""What the docs will say of a GPU, from a file as `make gpu` writes it: rows of the bench, made-up seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import of_gpu, of_speed, training

from evonorm.lab.bench.results import Result, compare

CARD = {"device": "NVIDIA Made-up", "torch": "2.11.0", "triton": "3.6.0", "cuda": "13.0", "commit": "abc"}
SECONDS = {"evonorm-s0 kernel": 1e-3, "batch_norm+relu": 2.5e-3, "evonorm-s0 timm": 1.6e-2, "copy": 2e-4}


def rows() -> list[dict[str, Any]]:
    """Of both shapes, as `evonorm bench --json` has them."""
    results = []
    for shape in (of_gpu.LARGE, of_gpu.SMALL):
        details = {"shape": shape, "dtype": "bf16", "format": "channels_last", "case": str(shape)}
        for name, seconds in SECONDS.items():
            layer, _, variant = name.partition(" ")
            made = Result(str(shape), "forward+backward", name, layer if variant else None, variant or "torch", 1)
            made.seconds, made.details, made.must_move, made.x_bytes = [seconds] * 3, details, 5, 100
            made.peak_bytes, made.host_seconds = 250, [4e-5] * 3
            results.append(made)
        results.append(
            Result(str(shape), "forward+backward", "relu", None, "torch", 1, "red", "wrong", details=details)
        )
    return [each.as_row({}) for each in compare(results)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    case = training._cases(training.REHEARSAL)[0]
    run = {**training._said(case), "images_per_second": [1.0], "median": 12345.6, "trouble": None, "batch_size": 128}
    steps: dict[str, dict[str, Any]] = {
        "tests/triton": {"status": "exit code 1", "passed": 90, "failed": 2, "skipped": 1},
        "tests/layers": {"status": "the time was over", "passed": 5, "failed": 0, "skipped": 0},
        "bench/headline": {"status": "finished", "rows": rows()},
        "train/speed": {"status": "finished", "rows": [run, {**run, "trouble": "no room"}, {**run, "median": None}]},
    }
    told = {name: {"conditions": CARD, "seconds": 1.0, **step} for name, step in steps.items()}
    told["train/speed"]["conditions"] = {**CARD, "commit": "def"}  # taken later
    (tmp_path / "made-up.json").write_text(json.dumps({"steps": told}))
    return tmp_path


def test_a_card_is_told_with_its_failures(folder: Path) -> None:
    text = of_gpu.tables(folder)
    for expected in (
        "**one NVIDIA Made-up**, torch 2.11.0, Triton 3.6.0, CUDA 13.0, commit abc, def.",
        "tests/triton: 90 passed, 2 failed, 1 skipped; tests/layers: 5 passed, 0 failed, 0 skipped (the time was over)",
        "(256, 256, 56, 56), forward + backward, bf16:",
        "| evonorm-s0 kernel | 1 | 2 | 2.5 | 16 | 0.04 | 2.5 |",  # the floor: five passes, a copy is two of 0.2 ms
        "| copy | 0.2 |  |  |  | 0.04 | 2.5 |",
        "| relu | red: wrong | | | | | |",
        "| `none` | torch's operations | eager | no | 12,346 |",
        "| `none` | torch's operations | eager | no | no room |",
        "| `none` | torch's operations | eager | no | not run |",
    ):
        assert expected in text
    assert text.index("| copy |") < text.index("| evonorm-s0 kernel |") < text.index("| batch_norm+relu |")


def test_the_readme_tells_the_fused_layer(folder: Path) -> None:
    assert of_gpu.told(folder) == (
        'On one NVIDIA Made-up, EvoNorm-S0 fused (`backend="triton"`) trains 2.5 times as fast as BatchNorm + ReLU and '
        "16 times as fast as timm's ((256, 256, 56, 56), bf16)."
    )


def test_without_a_card_it_is_not_measured(tmp_path: Path) -> None:
    assert of_gpu.tables(tmp_path).startswith("Not measured")
    assert of_gpu.told(tmp_path) is None
    assert "not measured" in of_speed.gpu_told() or of_gpu.told() is not None
