"""timm's layers and a network of its own, over evonorm.from_timm, in Keras."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest
import torch
from torch import nn

import evonorm
from evonorm.keras import from_torch
from tests.keras.backends import BACKEND
from tests.tensors import noise

if BACKEND == "tensorflow":
    pytest.skip(
        "timm loads torch's optimizers, and they Triton, which crashes after TensorFlow", allow_module_level=True
    )
timm = pytest.importorskip("timm")
timms = importlib.import_module("tests.layers.conversion.test_timms")


def assert_same(model, module: nn.Module, x: torch.Tensor, *, training: bool = False) -> None:
    """x: (N, C, H, W)."""
    found = keras.ops.convert_to_numpy(model(x.movedim(1, -1).numpy(), training=training))
    expected = module(x).detach()
    expected = expected.movedim(1, -1) if expected.dim() > 2 else expected
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("activate", [True, False], ids=["activated", "linear"])
@pytest.mark.parametrize("kind", timms.KINDS)
def test_each_layer_of_timms(kind: str, activate: bool) -> None:
    theirs = timms.perturbed(nn.Sequential(getattr(timm.layers, kind)(32, apply_act=activate)))
    layer = from_torch(evonorm.from_timm(theirs)[0])
    assert (layer.layer, layer.activate, layer.eps) == (timms.KINDS[kind], activate, theirs[0].eps)
    x = noise(3, 32, 5, 4, seed=3) + 0.3
    # A linear B layer of timm's keeps a variance that nothing reads; it stays behind.
    for training in (False, True):
        assert_same(layer, theirs.train(training), x, training=training)


def followed(module: nn.Module) -> keras.Model:
    """timm's EfficientNet, its norms ours already, as a Keras model; none of its blocks has a skip."""
    layers = keras.layers

    def run(x: keras.KerasTensor, path: str) -> keras.KerasTensor:
        part = module.get_submodule(path)
        own = {"name": path.replace(".", "_")}
        if isinstance(part, evonorm.NormActivation):
            return from_torch(part, **own)(x)
        if isinstance(part, nn.Conv2d):
            x = layers.ZeroPadding2D(part.padding)(x)
            own |= {"strides": part.stride, "use_bias": part.bias is not None}
            if part.groups > 1:
                return layers.DepthwiseConv2D(part.kernel_size, **own)(x)
            return layers.Conv2D(part.out_channels, part.kernel_size, **own)(x)
        if type(part).__name__ == "SqueezeExcite":
            mean = layers.GlobalAveragePooling2D(keepdims=True)(x)
            gate = run(layers.Activation("silu")(run(mean, f"{path}.conv_reduce")), f"{path}.conv_expand")
            return layers.Multiply()([x, layers.Activation("sigmoid")(gate)])
        for name, _ in part.named_children():
            x = run(x, f"{path}.{name}")
        return x

    x = given = keras.Input((32, 32, 3))
    for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2"):
        x = run(x, name)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(given, layers.Dense(module.num_classes, name="classifier")(x))


def test_a_network_of_timms() -> None:
    """test_efficientnet_evos: convolutions, depthwise ones, squeeze and excitation, thirteen EvoNorm-S0."""
    torch.manual_seed(0)
    theirs = timms.perturbed(timm.create_model("test_efficientnet_evos", num_classes=5)).eval()
    ours = evonorm.from_timm(theirs)
    model = followed(ours)
    assert from_torch(ours, model) is model
    assert_same(model, theirs, noise(2, 3, 32, 32))
