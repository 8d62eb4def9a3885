"""timm's models with timm's EvoNorm modules, and the same models with ours in their place."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import evonorm
from evonorm import NormActivation
from evonorm.layers.conversion.kinds import timms_layer

timm = pytest.importorskip("timm")

# Which layer they have, and how many values a group has channels.
MODELS = {
    "regnetz_c16_evos": ("evonorm-s0a", 16),
    "regnetz_d8_evos": ("evonorm-s0a", 16),
    "resnetv2_50d_evos": ("evonorm-s0", None),
    "test_efficientnet_evos": ("evonorm-s0", 8),
}
KINDS = {
    **{f"EvoNorm2d{kind}": f"evonorm-{kind.lower()}" for kind in ("B0", "B1", "B2", "S0", "S1", "S2")},
    **{f"EvoNorm2d{kind}": f"evonorm-{kind.lower()}" for kind in ("S0a", "S1a", "S2a")},
    "FilterResponseNormTlu2d": "frn-tlu",
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def perturbed(model: nn.Module) -> nn.Module:
    """Every parameter of a layer of timm's away from its initial value, where weight and v are alike."""
    for seed, module in enumerate(m for m in model.modules() if timms_layer(m)):
        for offset, (name, value) in enumerate(module.state_dict().items()):
            change = 0.2 * noise(*value.shape, seed=10 * seed + offset)
            value.copy_(change if name in ("bias", "tau") else change.abs() + 0.7)
    return model


def results(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output and every gradient, for one random cotangent."""
    x = x.clone().requires_grad_()
    y = model(x)
    y.backward(noise(*y.shape, seed=7))
    gradients: dict[str, Any] = {name: p.grad for name, p in model.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **gradients}


def assert_alike(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        error, size = (ours[name] - value).abs().max().item(), value.abs().max().item()
        assert error <= tolerance * max(size, 1e-3), f"{name}: off by {error}, largest value {size}"


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_timms(name: str) -> None:
    """Names load strictly in both directions; outputs and every gradient are timm's, training or not."""
    layer, group_size = MODELS[name]
    torch.manual_seed(0)
    theirs = perturbed(timm.create_model(name, num_classes=5))
    replaced = {path: module for path, module in theirs.named_modules() if timms_layer(module)}
    ours = evonorm.from_timm(timm.create_model(name, num_classes=5))
    ours.load_state_dict(theirs.state_dict())
    timm.create_model(name, num_classes=5).load_state_dict(ours.state_dict())
    assert replaced
    for path, old in replaced.items():
        new = ours.get_submodule(path)
        assert isinstance(new, NormActivation)
        assert (new.layer, new.activate, new.eps) == (layer, old.apply_act, old.eps)
        assert new.groups == (32 if group_size is None else new.channels // group_size)
    assert not any(timms_layer(module) for module in ours.modules())
    x = noise(2, 3, 64, 64)
    for training in (False, True):
        for model in (theirs, ours):
            model.train(training).zero_grad()
        assert_alike(results(ours, x), results(theirs, x), 2e-4)


@pytest.mark.parametrize("activate", [True, False], ids=["activated", "linear"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_each_layer_of_timms(kind: str, activate: bool, training: bool) -> None:
    from timm import layers

    grouped = {"groups": 4} if "S" in kind else {}
    theirs = perturbed(nn.Sequential(getattr(layers, kind)(8, apply_act=activate, **grouped))).train(training)
    ours = evonorm.from_timm(theirs)
    layer: Any = ours[0]
    assert (layer.layer, layer.activate, layer.training) == (KINDS[kind], activate, training)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = noise(3, 8, 5, 4, seed=3) + 0.3
    assert_alike(results(ours, x), results(theirs, x), 1e-5)
    for dtype in (torch.float64, torch.float32):
        ours.load_state_dict(theirs.state_dict())  # a training step has moved ours and timm's variances apart
        y, expected = ours.to(dtype)(x.to(dtype)), theirs.to(dtype)(x.to(dtype))
        assert y.dtype == dtype
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)  # timm's statistics are float32 always


def test_the_given_model_is_untouched_and_what_it_shares_stays_shared() -> None:
    from timm.layers import EvoNorm2dS0

    shared = EvoNorm2dS0(32).eval()
    shared.weight.requires_grad_(False)
    calls: list[int] = []
    shared.register_forward_hook(lambda *_: calls.append(1))
    model = nn.Sequential(shared, nn.Identity(), shared)
    ours = evonorm.from_timm(model)
    assert model[0] is model[2] is shared
    assert ours[0] is ours[2]
    assert not ours[0].training
    assert not ours[0].weight.requires_grad
    assert ours[0].bias.requires_grad
    assert ours[0].weight.data_ptr() != shared.weight.data_ptr()
    ours(noise(1, 32, 2, 2))
    assert calls == [1, 1]
    alone = evonorm.from_timm(copy.deepcopy(shared), backend="reference")
    assert isinstance(alone, NormActivation)
    assert alone.backend == "reference"


def test_what_is_refused() -> None:
    from timm.layers import EvoNorm2dS1

    with pytest.raises(ValueError, match="ResNet has none of timm's EvoNorm2d"):
        evonorm.from_timm(timm.create_model("resnet18", num_classes=2))
    with pytest.raises(ValueError, match="0 is EvoNorm2dS1 with GELU inside; evonorm-s1 has SiLU alone"):
        evonorm.from_timm(nn.Sequential(EvoNorm2dS1(8, act_layer=nn.GELU)))
    with pytest.raises(ValueError, match="0: groups must divide channels: got channels=8, groups=3"):
        evonorm.from_timm(nn.Sequential(EvoNorm2dS1(8, groups=3)))
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module: got str"):
        evonorm.from_timm("regnetz_c16_evos")  # type: ignore[arg-type]


def test_a_plan_says_what_serves_them() -> None:
    (site,) = evonorm.plan(nn.Sequential(timm.layers.EvoNorm2dS0a(32)), "evonorm-b0").sites
    assert site.what == "kept: timm's own evonorm-s0a; evonorm.from_timm puts ours in its place"
