"""What a run keeps: what computed each session; a last validation that was not finite; kernels asked for by name."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from evonorm.lab import machine
from evonorm.lab.errors import UserError
from evonorm.lab.pages import page
from evonorm.lab.records import run_files
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.training import resolve, run_folder, train
from evonorm.layers.kernels import triton
from tests.lab.pictures import pictures
from tests.lab.training.reconstruction import Reconstruction

CONFIG = TrainConfig(task="reconstruction", layer="evonorm-s0", groups=4, epochs=2, batch_size=32, precision="fp32")


def test_each_session_says_what_computed_it(tmp_path: Path) -> None:
    record = train(replace(CONFIG, backend="reference", device="cpu"), pictures(), tmp_path)
    (session,) = record.environment["sessions"]
    assert (session["device"], session["layers"], session["compiled"]) == ("cpu", "torch", False)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch 2.11's compiler asks
def test_a_compiled_network_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Reconstruction.network

    def compiled(self: Reconstruction) -> nn.Module:
        made = network(self)
        made.compile(backend="eager")
        return made

    monkeypatch.setattr(Reconstruction, "network", compiled)
    record = train(CONFIG, pictures(), tmp_path)
    assert [session["compiled"] for session in record.environment["sessions"]] == [True]


class Overflowing(nn.Module):
    """Finite in training; in evaluation as a layer whose running statistics are far off."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.training else x * torch.inf


@pytest.mark.parametrize("check_steps", [1, 5])
def test_a_last_validation_that_is_not_finite_is_a_divergence(
    check_steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training went on: the epochs are there, and where validation broke is said."""
    network = Reconstruction.network
    monkeypatch.setattr(Reconstruction, "network", lambda self: nn.Sequential(network(self), Overflowing()))
    config = replace(CONFIG, check_steps=check_steps)
    record = train(config, pictures(), tmp_path)
    assert record.status == "diverged"
    assert [epoch["val_loss"] for epoch in record.metrics] == [None, None]
    assert all(epoch["train_loss"] > 0 for epoch in record.metrics)
    found = record.summary["diagnosis"]
    assert (found["epoch"], found["step"], found["kind"], found["tensor"]) == (2, 4, "forward", "1")
    assert found["cause"].startswith("Training stayed finite to its end; its last validation did not. 1 overflowed")
    assert train(config, pictures(), tmp_path) == record
    assert "its last validation did not" in page.render(tmp_path)


def test_a_validation_that_recovers_is_no_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validate = Reconstruction.validate

    def first_is_lost(self: Reconstruction, epoch: int) -> dict[str, float]:
        return {name: value * (float("nan") if epoch == 1 else 1.0) for name, value in validate(self, epoch).items()}

    monkeypatch.setattr(Reconstruction, "validate", first_is_lost)
    record = train(CONFIG, pictures(), tmp_path)
    assert record.status == "finished"
    assert [epoch["val_loss"] is None for epoch in record.metrics] == [True, False]


def test_triton_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = replace(CONFIG, backend="triton", device="cpu")
    monkeypatch.setattr(triton, "INTERPRETED", False)
    monkeypatch.setattr(triton, "_INSTALLED", True)
    told = "backend=triton does not serve evonorm-s0 here: x on cpu, where Triton needs TRITON_INTERPRET=1 .*; use back"
    with pytest.raises(UserError, match=told):
        resolve(asked)
    monkeypatch.setattr(triton, "INTERPRETED", True)
    assert resolve(asked)[0].backend == "triton"
    assert machine.layers_by("triton", torch.device("cpu")) == "triton, interpreted"
    with pytest.raises(
        UserError, match="backend=triton does not serve none here: none has no kernel; use backend=auto"
    ):
        resolve(replace(asked, layer="none"))
    names = [run_folder(replace(CONFIG, backend=one), pictures(), Path()).name for one in ("auto", "kernel", "triton")]
    assert names[0] == names[1] != names[2]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_triton_interpreted_trains_as_the_reference_does(tmp_path: Path) -> None:
    """On a CPU, slowly; on a GPU none of it has run."""
    program = (
        "from dataclasses import replace; from pathlib import Path\n"
        "from evonorm.lab.training.training import train\n"
        "from tests.lab.pictures import pictures\n"
        "from tests.lab.training.test_keeping import CONFIG\n"
        "config = replace(CONFIG, epochs=1, backend='triton', device='cpu')\n"
        f"train(config, pictures(8, 4), Path({str(tmp_path)!r}))"
    )
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], env=environment, check=True)
    (made,) = run_files.read_all(tmp_path).records
    assert [session["layers"] for session in made.environment["sessions"]] == ["triton, interpreted"]
    plain = train(replace(CONFIG, epochs=1, backend="reference", device="cpu"), pictures(8, 4), tmp_path)
    for name in ("train_loss", "val_loss"):
        assert made.metrics[0][name] == pytest.approx(plain.metrics[0][name], rel=1e-5)
