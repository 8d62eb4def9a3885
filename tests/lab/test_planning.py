"""`evonorm plan`: a model by its name, its plan as text and as a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from evonorm import Plan, cli
from evonorm.lab.planning import named_model


def test_prints_and_writes_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    file = tmp_path / "plan.json"
    arguments = ["plan", "torchvision:resnet18", "evonorm-s0", "--groups", "16", "--without-activation", "affine"]
    assert cli.main([*arguments, "--json", str(file)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("ResNet: evonorm-s0 in the place of 20 of 20 normalizations, 0 kept\n")
    assert "layer1.0.bn2           BatchNorm2d(64)   replaced, activation off, an addition follows\n" in told
    plan = Plan.from_json(file.read_text())
    assert str(plan) in told
    assert {site.groups for site in plan.sites} == {16}


def test_timm(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    assert cli.main(["plan", "timm:test_efficientnet", "evonorm-b0"]) == 0
    assert "replaced with its SiLU" in capsys.readouterr().out


def test_mini_inception_has_our_layers_already(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "mini-inception", "evonorm-s0"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("MiniInception: evonorm-s0 in the place of 0 of 19 normalizations, 19 kept\n")
    assert told.count("kept: a NormActivation already\n") == 19


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "lraspp_mobilenet_v3_large", "torchvision:r3d_18"])
def test_other_models_than_classifiers(name: str) -> None:
    """Built without the trained weights of a backbone, which would come from the network."""
    pytest.importorskip("torchvision")
    assert all(parameter.is_meta for parameter in named_model(name).parameters())


def test_a_model_that_cannot_be_built_without_values() -> None:
    """RegNet's constructor rounds widths and lists them."""
    pytest.importorskip("torchvision")
    assert isinstance(named_model("torchvision:regnet_y_400mf"), nn.Module)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet5", "evonorm-s0"], "no model is called 'resnet5'; did you mean 'resnet50' or "),
        (["keras:resnet50", "evonorm-s0"], "choose from mini-inception, a model of torchvision (resnet18, mobilenet"),
        (["torchvision:fasterrcnn_resnet50", "evonorm-s0"], "did you mean 'fasterrcnn_resnet50_fpn' or "),
        (["torchvision:resnet18", "evonorm-s"], "no layer is called 'evonorm-s'; did you mean 'evonorm-"),
        (["torchvision:resnet18", "evonorm-s0", "--groups", "0"], "groups must be at least 1: got groups=0"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    assert cli.main(["plan", *arguments]) == cli.USER_ERROR
    told = capsys.readouterr()
    assert message in told.err
    assert "Traceback" not in told.err
