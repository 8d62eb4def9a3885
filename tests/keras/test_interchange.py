"""Weights to and from torch, by name."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from torch import nn

import evonorm
from evonorm.keras import NormActivation, from_torch, to_torch
from evonorm.layers.table import TABLE

X = np.random.default_rng(0).normal(size=(2, 5, 4, 6)).astype("float32")


def scramble(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + 0.3)


def same(model, module: nn.Module, x: np.ndarray) -> None:
    """x: (N, H, W, C)."""
    found = keras.ops.convert_to_numpy(model(x))
    expected = module.eval()(torch.from_numpy(x).movedim(-1, 1)).detach()
    expected = expected.movedim(1, -1) if expected.dim() > 2 else expected
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_layer_goes_to_keras_and_back(row) -> None:
    module = evonorm.NormActivation(6, row.name, groups=3, eps=1e-3, momentum=0.2)
    scramble(module)
    layer = from_torch(module)
    same(layer, module, X)
    back = to_torch(layer)
    assert repr(back) == repr(module)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, rtol=0, atol=0)


def pair() -> tuple[keras.Model, nn.Module]:
    layers = keras.layers
    given = keras.Input((5, 4, 6))
    x = layers.Conv2D(8, 3, name="stem_conv")(given)
    x = NormActivation("evonorm-b0", name="stem_norm")(x)
    inner = keras.Sequential(
        [keras.Input((3, 2, 8)), layers.DepthwiseConv2D(2, depth_multiplier=2, name="deep"), layers.ReLU()], name="part"
    )
    x = layers.BatchNormalization(name="bn", epsilon=1e-5)(inner(x))
    x = layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x))

    class Torch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.ModuleDict({"conv": nn.Conv2d(6, 8, 3), "norm": evonorm.NormActivation(8, "evonorm-b0")})
            self.part = nn.ModuleDict({"deep": nn.Conv2d(8, 16, 2, groups=8)})
            self.bn = nn.BatchNorm2d(16)
            self.head = nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.part["deep"](self.stem["norm"](self.stem["conv"](x))).relu()
            return self.head(self.bn(x).mean((2, 3)))

    return keras.Model(given, x), Torch()


def test_a_model_goes_by_its_paths() -> None:
    model, module = pair()
    scramble(module)
    assert from_torch(module, model) is model
    same(model, module, X)
    other = pair()[1]
    to_torch(model, other)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)


def test_what_has_no_counterpart_is_named_and_nothing_changes() -> None:
    model, module = pair()
    before = [weight.numpy() for weight in model.weights]
    module.extra = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"2 weights have no counterpart in Keras: extra_weight, extra_bias"):
        from_torch(module, model)
    del module.extra
    module.head = nn.Linear(16, 4)
    with pytest.raises(ValueError, match=r"head_weight has the shape \(3, 16\) in Keras and \(4, 16\) in torch"):
        from_torch(module, model)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)
    with pytest.raises(ValueError, match="a Functional needs a target"):
        to_torch(model)
    with pytest.raises(ValueError, match="has no weights yet"):
        to_torch(NormActivation())
    with pytest.raises(ValueError, match="momentum=None"):
        from_torch(evonorm.NormActivation(4, "bn-relu", momentum=None))
    gru = keras.Sequential([keras.Input((3, 2)), keras.layers.GRU(2, name="gru")])
    with pytest.raises(ValueError, match="gru is a GRU, whose weights are not known here"):
        to_torch(gru, module)
