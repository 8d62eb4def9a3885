"""The profile of a training step: artificial delays show in their own rows, and the rows add up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.profiler_util import Interval

from evonorm import NormActivation, cli
from evonorm.lab.errors import UserError
from evonorm.lab.training import augmentation, optimizers, profile, stages
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.tasks import image_work
from tests.lab.pictures import pictures

CONFIG = TrainConfig(layer="bn-relu", batch_size=4, precision="fp32", device="cpu", augment=True)
SITES = 19
DELAY = 0.005


class Sleeping(torch.autograd.Function):
    """The identity, slow in both directions."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        time.sleep(DELAY)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        time.sleep(DELAY)
        return gradient.clone()


@torch.library.custom_op("evonorm_test::sleeping", mutates_args=())
def sleeping_op(x: Tensor) -> Tensor:
    """The same, registered as a fused kernel would be."""
    time.sleep(DELAY)
    return x.clone()


@torch.library.custom_op("evonorm_test::sleeping_backward", mutates_args=())
def sleeping_op_backward(gradient: Tensor) -> Tensor:
    time.sleep(DELAY)
    return gradient.clone()


sleeping_op.register_autograd(lambda ctx, gradient: sleeping_op_backward(gradient))


@pytest.fixture(autouse=True)
def one_step_of_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "WARM_UP_STEPS", 1)


@pytest.mark.parametrize(
    ("module", "row", "sites", "slow"),
    [
        (NormActivation, "layers", SITES, Sleeping.apply),
        (NormActivation, "layers", SITES, sleeping_op),
        (nn.Conv2d, "convolution", SITES, Sleeping.apply),
        (nn.MaxPool2d, "other network", 2, Sleeping.apply),
    ],
    ids=["layers", "layers as one operation", "convolution", "other"],
)
def test_a_slow_module_shows_in_its_rows(
    monkeypatch: pytest.MonkeyPatch, module: type[nn.Module], row: str, sites: int, slow: Callable[[Tensor], Tensor]
) -> None:
    forward = module.forward
    monkeypatch.setattr(module, "forward", lambda self, x: slow(forward(self, x)))
    steps: list[Any] = []
    split = profile.split
    monkeypatch.setattr(profile, "split", lambda step: steps.append(step) or split(step))
    parts = profile.profile(CONFIG, pictures(), steps=1).parts()
    # A sleep is never shorter than asked for, so this holds on a busy machine; the sum leaves no room for it elsewhere.
    assert parts[f"{row}, forward"] >= 1e3 * DELAY * sites
    assert parts[f"{row}, backward"] >= 1e3 * DELAY * sites
    (step,) = steps
    assert sum(parts.values()) == pytest.approx(step.time_range.elapsed_us() / 1e3)


def test_a_slow_stage_shows_in_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(part: str, where: object, name: str) -> None:
        original = getattr(where, name)

        def slowed(*arguments, **named):
            time.sleep(delays[part])
            return original(*arguments, **named)

        monkeypatch.setattr(where, name, slowed)

    delays = {"data": 0.05, "augmentation": 0.06, "gradient check": 0.07, "optimizer": 0.08, "rest": 0.09}
    slow("data", image_work.ImageData, "floats")
    slow("augmentation", augmentation, "apply")
    slow("gradient check", nn.utils, "get_total_norm")
    slow("optimizer", optimizers.SGD, "_update")
    slow("rest", profile._Sampler, "step")
    parts = profile.profile(CONFIG, pictures(), steps=1).parts()
    assert all(parts[part] >= 1e3 * delay for part, delay in delays.items())


def event(name: str, start: int, end: int, *inside: Any, node: int = -1) -> Any:
    """As the profiler tells it: microseconds; node: the sequence number of the autograd node that it makes or runs."""
    return SimpleNamespace(name=name, time_range=Interval(start, end), cpu_children=list(inside), sequence_nr=node)


def step(*inside: Any) -> Any:
    return event(stages.STEP, 0, 1000, *inside)


def stage(name: str, start: int, end: int, *inside: Any) -> Any:
    return event(stages.STAGE + name, start, end, *inside)


def node(name: str, start: int, end: int, *inside: Any, of: int) -> Any:
    return event(f"autograd::engine::evaluate_function: {name}", start, end, *inside, node=of)


FORWARD = stage(
    "forward",
    100,
    500,
    event("evonorm module: convolution", 110, 200, event("aten::conv2d", 120, 190, node=1)),
    event(
        "evonorm module: layers", 200, 300, event("aten::mul", 210, 260, node=2), event("aten::add", 260, 290, node=3)
    ),
    event("aten::max_pool2d", 300, 340, node=4),
    event("evonorm module: convolution", 340, 400, event("aten::to", 350, 360, node=5)),
)
BACKWARD = stage(
    "backward",
    500,
    800,
    node("MaxPool2DBackward0", 510, 540, of=4),
    node("AddBackward0", 540, 600, of=3),
    node("MulBackward0", 600, 650, event("MulBackward0", 600, 645, event("aten::mul", 610, 640), node=2), of=2),
    node("ConvolutionBackward0", 650, 750, event("aten::add", 730, 750), of=1),  # where two read one tensor
    node("AccumulateGrad", 750, 760, of=9),
)


def test_an_events_own_time_counts_once_in_the_part_whose_it_is() -> None:
    """Operations inside a module, nodes of what was made in it, casts and sums beside the convolutions."""
    parts = profile.split(step(stage("data", 10, 30), stage("augmentation", 30, 90), FORWARD, BACKWARD))
    assert parts == pytest.approx(
        {
            "convolution, forward": 0.14,
            "convolution, backward": 0.08,
            "layers, forward": 0.1,
            "layers, backward": 0.11,
            "other network, forward": 0.05,
            "other network, backward": 0.05,
            "data": 0.02,
            "augmentation": 0.06,
            "gradient check": 0.0,
            "optimizer": 0.0,
            "rest": 0.39,
        }
    )
    assert sum(parts.values()) == pytest.approx(1.0)


def test_every_layer_has_rows_and_nothing_else_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of torch operations under bf16 too; no folder, no change of torch's global generator, no hook left."""
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    config = replace(CONFIG, layer="evonorm-s0", groups=8, precision="bf16", augment=False)
    result = profile.profile(config, pictures(), steps=2)
    assert len(result.steps) == len(result.step_ms) == len(result.plain_step_ms) == 2
    for step in result.steps:
        assert set(step) == set(profile.PARTS)
        assert [part for part in profile.PARTS if not step[part] > 0] == ["augmentation"]
    assert torch.equal(before, torch.get_rng_state())
    assert not list(tmp_path.iterdir())


def test_command_prints_the_table_and_leaves_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--data", "digits", "--train-images", "20", "--batch-size", "4", "--precision", "fp32"]
    arguments += ["--layer", "bn-relu", "--out", str(tmp_path / "runs"), "--profile", "1"]
    assert cli.main([*arguments, "--profile-json", str(tmp_path / "profile.json")]) == 0
    shown = capsys.readouterr().out
    assert all(part in shown for part in profile.PARTS)
    assert "without the profiler, in turn with it" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]
    content = json.loads((tmp_path / "profile.json").read_text())
    assert content["step_ms"] == pytest.approx(sum(content["parts_ms"].values()))
    assert content["conditions"]["config"]["layer"] == "bn-relu"
    assert content["conditions"]["dataset"]["name"] == "digits"
    assert {"torch", "processor", "threads", "commit", "evonorm"} <= set(content["conditions"]["environment"])
    assert str(tmp_path) not in json.dumps(content)


def test_user_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="at least 1 step: got 0"):
        profile.profile(CONFIG, pictures(), steps=0)
    with pytest.raises(UserError, match="the run diverged during the profile"):
        profile.profile(replace(CONFIG, layer="none", learning_rate=1e6), pictures(), steps=9)
    assert cli.main(["train", "--data", "digits", "--profile-json", "profile.json"]) == 2
    assert "--profile-json profile.json needs --profile" in capsys.readouterr().err
