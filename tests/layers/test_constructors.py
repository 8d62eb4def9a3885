"""Layers handed to constructors of torchvision and timm: what they can express is right, the rest is refused."""

from __future__ import annotations

import functools
import unittest.mock

import pytest
import torch
from torch import nn

import evonorm
from evonorm import NormActivation
from evonorm.layers import table
from evonorm.layers.table import TABLE, get
from tests.tensors import noise

ALONE = ("bn-relu", "bn-silu", "gn-relu", "gn-silu", "frn-tlu", "evonorm-s0a", "evonorm-s1a", "evonorm-s2a")
CONVERT = r"build the model with its default norm_layer, then evonorm\.convert\(model, "


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_what_normalizes_without_its_activation(row) -> None:
    """By what it does: affine alone gives back a spread that it was given."""
    assert row.normalizes_alone == (row.name in ALONE)
    layer = NormActivation(8, row.name, groups=4, activate=False)
    x = noise(4, 8, 9, 9)
    spread = layer(x * 100).std() / layer(x).std()
    assert (spread < 1.01) == row.normalizes_alone


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf"]
)
def test_torchvisions_constructors_refuse_the_class(name: str) -> None:
    """Bare, as a partial, and behind a function of the user's: the constructor would add a second activation."""
    models = pytest.importorskip("torchvision").models
    for given in (
        NormActivation,
        functools.partial(NormActivation, layer="evonorm-s0", fit_groups=True),
        lambda channels: NormActivation(channels, "bn-relu"),
    ):
        with pytest.raises(
            TypeError, match=rf"norm_layer of torchvision's \w+: it has activations of its own.*{CONVERT}"
        ):
            models.get_model(name, norm_layer=given)


def test_other_modules_build_the_class_as_they_like() -> None:
    """Also inside a constructor of torchvision's: who asks is the block, and it is the user's."""
    torchvision = pytest.importorskip("torchvision")
    resnet = torchvision.models.resnet

    class Block(resnet.BasicBlock):
        def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample=None, *others, **settings) -> None:
            super().__init__(inplanes, planes, stride, downsample, *others, **settings)
            self.bn1, self.relu = NormActivation(planes, "evonorm-s0"), nn.ReLU()

    model = resnet.ResNet(Block, [1, 1, 1, 1])
    assert sum(isinstance(module, NormActivation) for module in model.modules()) == 4

    conv = functools.partial(
        torchvision.ops.Conv2dNormActivation, 3, 8, norm_layer=lambda c: NormActivation(c, groups=4)
    )
    assert isinstance(conv(activation_layer=None)[1], NormActivation)
    with pytest.raises(TypeError, match="norm_layer of torchvision's Conv2dNormActivation"):
        conv()

    class Sub(NormActivation):
        def __init__(self, channels: int) -> None:
            super().__init__(channels, "evonorm-s0", groups=4)

    assert Sub(8).groups == 4


@pytest.mark.parametrize("layer", ALONE)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_b0"])
def test_norm_layer_in_torchvisions_constructors(layer: str, name: str) -> None:
    """The model is the default one with each BatchNorm exchanged: the same activations, each norm the layer's own."""
    models = pytest.importorskip("torchvision").models
    model = models.get_model(name, norm_layer=evonorm.norm_layer(layer, groups=32))
    plain = models.get_model(name)
    kinds = {key: type(module) for key, module in plain.named_modules() if not isinstance(module, nn.BatchNorm2d)}
    assert {k: type(m) for k, m in model.named_modules() if not isinstance(m, NormActivation)} == kinds
    norms = {key: module for key, module in model.named_modules() if isinstance(module, NormActivation)}
    assert norms.keys() == {key for key, module in plain.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for norm in norms.values():
        assert norm.layer == layer
        assert not norm.activate
        if get(layer).grouped:  # 16 channels cannot have 32 groups
            assert norm.channels % norm.groups == 0
            assert norm.groups <= 32
    y = model(noise(2, 3, 64, 64))
    y.sum().backward()
    assert torch.isfinite(y).all()


def test_norm_layer_is_torchs_own_norm_in_place() -> None:
    """bn-relu without its ReLU is BatchNorm, so the network is the default one, to the bit."""
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    plain = models.resnet18(zero_init_residual=True)
    torch.manual_seed(0)
    model = models.resnet18(norm_layer=evonorm.norm_layer("bn-relu", backend="reference"))
    model.load_state_dict(plain.state_dict())
    x = noise(2, 3, 64, 64)
    assert torch.equal(model(x), plain(x))
    assert torch.equal(model.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("layer", [row.name for row in TABLE if row.name not in ALONE])
def test_norm_layer_refuses_what_is_nothing_without_its_activation(layer: str) -> None:
    with pytest.raises(ValueError, match=rf"{layer} does not normalize without its activation.*{CONVERT}'{layer}'\)"):
        evonorm.norm_layer(layer)


def test_norm_layer_refuses_at_once_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="did you mean 'gn-relu'"):
        evonorm.norm_layer("gnrelu")
    assert repr(evonorm.norm_layer("gn-relu")) == "evonorm.norm_layer('gn-relu')"
    assert evonorm.norm_layer("gn-relu", group_size=8)(16).groups == 2


@pytest.fixture
def timm():
    library = pytest.importorskip("timm")
    from timm.layers import create_norm, create_norm_act

    with (
        unittest.mock.patch.dict(create_norm._NORM_MAP),
        unittest.mock.patch.dict(create_norm_act._NORM_ACT_MAP),
    ):
        yield library


def test_register_timm_leaves_timms_own_names(timm) -> None:
    maps = (timm.layers.create_norm_act._NORM_ACT_MAP, timm.layers.create_norm._NORM_MAP)
    before = [dict(known) for known in maps]
    names = evonorm.register_timm()
    assert names == {row.name: row.name.replace("-", ".") for row in TABLE}
    for known, old in zip(maps, before, strict=True):
        assert {key: known[key] for key in old} == old
        assert known.keys() - old.keys() == set(names.values())


@pytest.mark.parametrize("name", ["mine", "My-layer", "rms (v 2)"])
def test_timm_knows_added_layers(timm, name: str) -> None:
    with unittest.mock.patch.dict(table._ROWS):
        evonorm.add_layer(name, "x * sigmoid(a * x) / rms_group * weight + bias")
        theirs = evonorm.register_timm()[name]
        model = timm.create_model("mobilenetv2_050", norm_layer=theirs, num_classes=3)
        layers = [module for module in model.modules() if isinstance(module, NormActivation)]
        assert {module.layer for module in layers} == {name}
        assert model(noise(2, 3, 64, 64)).shape == (2, 3)
        evonorm.add_layer(name.swapcase(), "x * weight + bias")
        with pytest.raises(ValueError, match=r"timm cannot tell .* apart: add them under other names"):
            evonorm.register_timm()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
@pytest.mark.parametrize("apply_act", [True, False])
def test_timms_factory(timm, row, apply_act: bool) -> None:
    name = evonorm.register_timm(group_size=8)[row.name]
    layer = timm.layers.create_norm_act_layer(name, 48, act_layer="relu", apply_act=apply_act)
    assert isinstance(layer, NormActivation)
    assert (layer.layer, layer.channels, layer.activate) == (row.name, 48, apply_act)
    assert layer.groups == (6 if row.grouped else 1)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnetv2_50", "regnety_002", "mobilenetv2_050"])
@pytest.mark.parametrize(("ours", "theirs"), [("evonorm.s0", "evonorms0"), ("evonorm.s0a", "evonorms0a")])
def test_timms_models_by_name(timm, name: str, ours: str, theirs: str) -> None:
    """Norm for norm the model that timm builds with its own layer of that formula, the same outputs."""
    evonorm.register_timm()
    torch.manual_seed(0)
    try:
        expected = timm.create_model(name, norm_layer=theirs)
    except AssertionError:  # timm's own layer has 32 groups or none
        expected = None
    model = timm.create_model(name, norm_layer=ours)
    layers = {key: module for key, module in model.named_modules() if isinstance(module, NormActivation)}
    assert layers
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert torch.isfinite(model(noise(2, 3, 64, 64))).all()
    if expected is None:
        return
    found = {key: m for key, m in expected.named_modules() if type(m).__name__.startswith("EvoNorm")}
    assert {key: m.activate for key, m in layers.items()} == {key: m.apply_act for key, m in found.items()}
    if all(m.groups == layers[key].groups for key, m in found.items()):
        model.load_state_dict(expected.state_dict())
        x = noise(2, 3, 64, 64)
        torch.testing.assert_close(model.eval()(x), expected.eval()(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layer", ALONE)
def test_timms_models_with_norm_and_activation_apart(timm, layer: str) -> None:
    """The model keeps its activations, so the layer leaves its own off."""
    model = timm.create_model("resnet18", norm_layer=evonorm.register_timm()[layer], num_classes=7)
    plain = timm.create_model("resnet18", num_classes=7)
    layers = [module for module in model.modules() if isinstance(module, NormActivation)]
    assert len(layers) == sum(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert not any(module.activate for module in layers)
    assert model(noise(2, 3, 64, 64)).shape == (2, 7)
    if layer == "bn-relu":
        model.load_state_dict(plain.state_dict())
        x = noise(2, 3, 64, 64)
        torch.testing.assert_close(model(x), plain(x), rtol=1e-3, atol=1e-3)


def test_timm_refuses_what_it_cannot_express(timm) -> None:
    """Norm and activation apart, a bare class, dropping inside: nothing is built that has two activations, or none."""
    names = evonorm.register_timm()
    for layer, name in names.items():
        if layer not in ALONE:
            with pytest.raises(ValueError, match=rf"{layer} takes the activation with it, .*{CONVERT}'{layer}'\)"):
                timm.create_model("resnet18", norm_layer=name)
    for given in (NormActivation, functools.partial(NormActivation, layer="evonorm-s0", fit_groups=True)):
        with pytest.raises(TypeError, match=r"norm_layer of timm's \w+: .*evonorm\.register_timm\(\)"):
            timm.create_model("resnet18", norm_layer=given)
        with pytest.raises(AssertionError):
            timm.create_model("efficientnet_lite0", norm_layer=given)
    for name in ("resnet18", "efficientnet_lite0"):
        with pytest.raises(AssertionError):
            timm.create_model(name, norm_layer=evonorm.norm_layer("gn-relu"))
    with pytest.raises(ValueError, match="evonorm-s0 drops nothing"):
        timm.layers.create_norm_act_layer("evonorm.s0", 32, drop_layer=nn.Dropout2d)
