"""How many runs a machine takes at once, and which GPU each of them sees. nvidia-smi is made up: there is none here."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from evonorm.lab.jobs import executors
from evonorm.lab.jobs.executors import capacity
from evonorm.lab.jobs.executors.gpus import Gpu, gpus
from evonorm.lab.jobs.job import Job, Outcome, Reporter

TWO = "0, GPU-aaaa, 40000\n1, GPU-bbbb, 9000\n"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program of this name on the path, which says this text."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def says(text: str, exit_code: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {exit_code}\n")
        program.chmod(0o755)

    return says


def test_workers_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "cores", lambda: 8)
    for free, workers in {100.0: 8, 11.0: 3, 1.0: 1, None: 8}.items():
        monkeypatch.setattr(capacity, "_free_gigabytes", lambda free=free: free)
        assert executors.default_workers(3.5) == workers
    assert executors.default_workers(None) == 8


@pytest.mark.parametrize(("free", "workers"), [([80.0], 16), ([22.0], 5), ([22.0, 9.0], 7), ([1.0], 1), ([], 16)])
def test_workers_by_the_memory_of_gpus(free: list[float], workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "cores", lambda: 16)
    monkeypatch.setattr(capacity, "_free_gigabytes", lambda: 128.0)
    there = [Gpu(str(number), gigabytes) for number, gigabytes in enumerate(free)]
    assert executors.default_workers(3.5, there) == workers
    assert executors.default_workers(None, there) == 16


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ["GPU-aaaa", "GPU-bbbb"]), ("1", ["GPU-bbbb"]), ("GPU-bbbb, 0", ["GPU-bbbb", "GPU-aaaa"]), ("", [])],
)
def test_gpus_that_are_visible(
    visible: str | None, names: list[str], nvidia_smi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(TWO)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.name for gpu in gpus()] == names
    assert {gpu.free_gigabytes for gpu in gpus()} <= {40000 / 1024, 9000 / 1024}


@pytest.mark.parametrize(("text", "exit_code"), [("", 0), (TWO, 9), ("0, GPU-aaaa, [N/A]\n", 0), ("No devices\n", 0)])
def test_without_an_answer_there_are_none(text: str, exit_code: int, nvidia_smi: Any) -> None:
    nvidia_smi(text, exit_code)
    assert gpus() == []


def test_gpus_that_torch_cannot_use_are_none(nvidia_smi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(TWO)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpus() == []


class Tells:
    """A target that says which GPU its process sees; it runs until it is asked to stop, so each has its own process."""

    resumes = ships_folder = False

    def run(self, job: Job, reporter: Reporter) -> Outcome:
        reporter.tell({"gpu": os.environ["CUDA_VISIBLE_DEVICES"]})
        while not reporter.stop_requested():
            time.sleep(0.01)
        return Outcome("stopped")


def test_workers_share_gpus_alike(tmp_path: Path) -> None:
    processes: Any = executors.Processes(Tells(), 3, ["a", "b"])  # type: ignore[arg-type]
    told: list[str] = []
    try:
        for number in range(3):
            processes.submit(Job(number, {}, tmp_path / str(number), tmp_path))
        while len(told) < 3:
            told += [message.metrics["gpu"] for message in processes.wait(10.0) if isinstance(message, executors.Told)]
    finally:
        processes.close()
    assert sorted(told) == ["a", "a", "b"]
