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
from tests.layers.conversion import checks, models
from tests.tensors import noise

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
    y.backward(noise(*y.shape, seed=7).to(y.dtype))
    gradients: dict[str, Any] = {name: p.grad for name, p in model.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **gradients}


def assert_alike(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        error, size = (ours[name] - value).abs().max().item(), value.abs().max().item()
        assert error <= tolerance * max(size, 1e-3), f"{name}: off by {error}, largest value {size}"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float32) for name in MODELS), ("test_efficientnet_evos", torch.float64)],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_a_model_of_timms(name: str, dtype: torch.dtype) -> None:
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
    x = noise(2, 3, 64, 64).to(dtype)
    for training in (False, True):
        for model in (theirs, ours):
            model.to(dtype).train(training).zero_grad()
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


def test_convert_with_the_layer_that_a_model_has_is_from_timm() -> None:
    """Groups, epsilon, values and activations are timm's own where nothing else is asked for."""
    torch.manual_seed(0)
    theirs = perturbed(timm.create_model("test_efficientnet_evos", num_classes=5))
    theirs.blocks[0][0].bn1.v.requires_grad_(False)
    ours = evonorm.convert(theirs, "evonorm-s0", backend="reference")
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert [n for n, p in ours.named_parameters() if not p.requires_grad] == ["blocks.0.0.bn1.v"]
    for one, other in zip(ours.modules(), evonorm.from_timm(theirs, backend="reference").modules(), strict=True):
        assert one.extra_repr() == other.extra_repr()
    x = noise(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("without", "off"), [("keep", 4), ("affine", 4), ("replace", 0)])
def test_another_layer_at_the_same_sites(without: Any, off: int) -> None:
    theirs = timm.create_model("test_efficientnet_evos", num_classes=5)
    sites = {name: module for name, module in theirs.named_modules() if timms_layer(module)}
    plan = evonorm.plan(theirs, "bn-relu", without_activation=without)
    assert [site.name for site in plan.replaced] == list(sites)
    ours = plan.apply()
    for name, old in sites.items():
        new = ours.get_submodule(name)
        assert isinstance(new, NormActivation)
        assert (new.layer, new.eps, new.running_mean is not None) == ("bn-relu", 1e-5, True)
        assert new.activate == (old.apply_act or without == "replace")
    assert sum(not m.activate for m in ours.modules() if isinstance(m, NormActivation)) == off
    told = str(plan)
    assert "bn1             EvoNorm2dS0(24)   replaced with its own activation\n" in told
    assert ("blocks.1.0.bn2  EvoNorm2dS0(24)   replaced, activation off, Conv2d follows\n" in told) == (off > 0)
    again = evonorm.Plan.from_json(plan.to_json()).apply(theirs)
    again.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_every_module_of_timms_is_a_site(kind: str) -> None:
    """With v, tau and the running variance carried over where the new layer has them."""
    from timm import layers

    theirs = perturbed(nn.Sequential(getattr(layers, kind)(8, **({"groups": 4} if "S" in kind else {})))).eval()
    ours = evonorm.convert(theirs, KINDS[kind], backend="reference")
    x = noise(3, 8, 5, 4, seed=3) + 0.3
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    (site,) = evonorm.plan(theirs, "evonorm-b0", groups=2).sites
    label = "SiLU" if hasattr(theirs[0], "act") else "own activation"
    assert (site.family, site.what, site.activate) == ("timm", f"replaced with its {label}", True)
    kept = evonorm.plan(theirs, "evonorm-b0", where=lambda site: False)
    assert kept.sites[0].what == "kept: the predicate `where` excludes it"


def test_every_site_is_accounted_for() -> None:
    with checks.quiet(), torch.random.fork_rng([]):
        torch.manual_seed(0)
        found = checks.check(*models.timm_model("test_efficientnet_evos"), layer="evonorm-s0a")
    assert (found.norms, found.replaced, found.activations_after) == (13, 13, found.activations_before)
