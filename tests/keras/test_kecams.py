"""Weights to and from keras_cv_attention_models: by a stand-in for its layer, and where it is installed by itself."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from evonorm.keras import NormActivation, from_kecam, to_kecam
from tests.keras.backends import BACKEND

# What kecam's arguments mean: layer, activation, its weights.
KINDS: dict[str, tuple[dict[str, Any], str, bool, set[str]]] = {
    "b0": ({}, "evonorm-b0", True, {"weight", "bias", "v", "running_var"}),
    "s0": ({"num_groups": 4}, "evonorm-s0", True, {"weight", "bias", "v"}),
    "s0a": ({"num_groups": 3, "nonlinearity": False}, "evonorm-s0a", False, {"weight", "bias"}),
    "affine": ({"nonlinearity": False}, "evonorm-b0", False, {"weight", "bias"}),
}
KINDS_OF = pytest.mark.parametrize("kind", KINDS)
INSTALLED = importlib.util.find_spec("keras_cv_attention_models") and importlib.util.find_spec("tf_keras")
REAL = pytest.mark.skipif(  # in CI `make tensorflow` installs them
    BACKEND != "tensorflow" or (not INSTALLED and not os.environ.get("CI")),
    reason="needs TensorFlow, tf_keras and keras_cv_attention_models",
)


class EvoNormalization(keras.layers.Layer):
    """A layer with the attributes and weights of kecam's, and S0 and S0a as formulas."""

    def __init__(self, nonlinearity=True, num_groups=-1, momentum=0.99, epsilon=0.001, data_format="auto", **own):
        super().__init__(**own)
        self.nonlinearity, self.num_groups, self.momentum, self.epsilon = nonlinearity, num_groups, momentum, epsilon
        self.is_channels_first = data_format == "channels_first"

    def build(self, shape) -> None:
        place = 1 if self.is_channels_first else -1
        self.channels = shape[place]
        of_weights = [1] * len(shape)
        of_weights[place] = self.channels
        names = ["gamma", "beta", *["moving_variance"] * (self.num_groups <= 0), *["vv"] * self.nonlinearity]
        for name in names:
            weight = self.add_weight(name=name, shape=of_weights, initializer="ones", trainable=name[0] != "m")
            setattr(self, name, weight)

    def call(self, x):
        """x: (N, H, W, C)."""
        groups = next(number for number in range(self.num_groups, 0, -1) if self.channels % number == 0)
        grouped = ops.reshape(x, (-1, *x.shape[1:-1], groups, self.channels // groups))
        std = ops.sqrt(ops.var(grouped, axis=(1, 2, 4), keepdims=True) + self.epsilon)
        y = ops.reshape(grouped / std, ops.shape(x)) * self.gamma
        return (y * ops.sigmoid(self.vv * x) if self.nonlinearity else y) + self.beta


def scramble(weights: list[Any]) -> None:
    random = np.random.default_rng(3)
    for weight in weights:
        weight.assign(random.uniform(0.3, 1.3, tuple(weight.shape)))


def values(layer: Any) -> dict[str, np.ndarray]:
    return {weight.name.partition(":")[0].rpartition("/")[2]: weight.numpy() for weight in layer.weights}


@KINDS_OF
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_layer_comes_and_goes_back(kind: str, data_format: str) -> None:
    arguments, name, activate, names = KINDS[kind]
    shape = (None, 6, None, None) if data_format == "channels_first" else (None, None, None, 6)
    theirs, other = (EvoNormalization(**arguments, data_format=data_format) for _ in range(2))
    for layer in (theirs, other):
        layer.build(shape)
    scramble(theirs.weights)
    ours = from_kecam(theirs)
    assert (ours.layer, ours.activate, ours.eps, ours.data_format) == (name, activate, 1e-3, data_format)
    assert (ours.groups_in_force, ours.momentum) == ({"s0": 3, "s0a": 3}.get(kind, 1), pytest.approx(0.01))
    assert ({weight.name for weight in ours.weights}, ours.name) == (names, theirs.name)
    if (kind, data_format) == ("s0", "channels_last"):
        x = np.random.default_rng(0).normal(size=(2, 5, 4, 6)).astype("float32")
        np.testing.assert_allclose(*(ops.convert_to_numpy(one(x)) for one in (ours, theirs)), rtol=1e-5, atol=1e-5)
    assert to_kecam(ours, other) is other
    for weight, value in values(theirs).items():
        idle = kind == "affine" and weight == "moving_variance"
        np.testing.assert_array_equal(values(other)[weight], np.ones_like(value) if idle else value)


def pair(kit: Any, norm: Any) -> tuple[Any, keras.Model]:
    """A model of kecam's, on the Keras that `kit` is, with its layer `norm`, and one of ours alike."""

    def model(kit: Any, first: Any, second: Any) -> Any:
        layers = kit.layers
        return kit.Sequential(
            [
                layers.Input((6, 6, 3)),
                layers.Conv2D(8, 3, use_bias=False, name="stem_conv"),
                first,
                layers.DepthwiseConv2D(3, name="deep"),
                layers.BatchNormalization(name="bn"),
                second,
                layers.GlobalAveragePooling2D(),
                layers.Dense(3, name="predictions"),
            ]
        )

    theirs = model(
        kit, norm(num_groups=4, name="stem_evo_norm"), norm(num_groups=4, nonlinearity=False, name="out_evo_norm")
    )
    scramble(theirs.weights)
    own = {"groups": 4, "eps": 1e-3}
    ours = model(
        keras,
        NormActivation("evonorm-s0", name="stem_evo_norm", **own),
        NormActivation("evonorm-s0a", activate=False, name="out_evo_norm", **own),
    )
    return theirs, ours


def check_models(kit: Any, norm: Any, save: Any, folder: Path) -> None:
    """By names and through a file, to the same outputs, and back."""
    theirs, ours = pair(kit, norm)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    assert from_kecam(theirs, ours) is ours
    np.testing.assert_allclose(ops.convert_to_numpy(ours(x)), ops.convert_to_numpy(theirs(x)), rtol=1e-5, atol=1e-5)
    other, through_a_file = pair(kit, norm)
    save(theirs, folder / "theirs.h5")
    from_kecam(folder / "theirs.h5", through_a_file)
    for one, two in zip(through_a_file.weights, ours.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    scramble(through_a_file.weights[::-1])
    to_kecam(through_a_file, other)
    y = ops.convert_to_numpy(through_a_file(x))
    np.testing.assert_allclose(ops.convert_to_numpy(other(x)), y, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_model_goes_by_its_names(tmp_path: Path) -> None:
    check_models(keras, EvoNormalization, lambda model, path: model.save(path), tmp_path)


def test_what_has_no_counterpart_is_named_and_nothing_changes() -> None:
    theirs, ours = pair(keras, EvoNormalization)
    before = [weight.numpy() for weight in ours.weights]
    ours.get_layer("deep").name = "deeper"
    with pytest.raises(ValueError, match="2 weights have no counterpart in kecam: deeper/kernel, deeper/bias"):
        from_kecam(theirs, ours)
    for weight, old in zip(ours.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)
    with pytest.raises(ValueError, match="a Sequential needs a target: from_kecam"):
        from_kecam(theirs)
    with pytest.raises(ValueError, match="evo_norm has no weights yet: call it, or build it"):
        from_kecam(EvoNormalization(name="evo_norm"))
    wide = EvoNormalization(num_groups=1)
    wide.build((None, 4, 4, 7))
    layer = NormActivation("evonorm-s0", groups=1)
    layer.build((None, 4, 4, 6))
    with pytest.raises(ValueError, match=r"gamma has the shape \(6,\) in Keras and \(7,\) in kecam"):
        to_kecam(layer, wide)
    on_torch = mock.Mock(spec=["built", "name", "weights"])
    on_torch.weights = [mock.Mock(spec=["name"])]
    with pytest.raises(ValueError, match=r"runs on torch, where kecam .* takes means for variances"):
        to_kecam(layer, on_torch)


@REAL
@KINDS_OF
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_kecams_own_layer(kind: str, data_format: str) -> None:
    """Outputs, in training and out of it, and the running variance after two batches."""
    from keras_cv_attention_models.attention_layers import EvoNormalization as Kecams

    x = np.random.default_rng(0).normal(0.4, 1.7, (3, 6, 6, 6)).astype("float32")
    theirs, back = (Kecams(**KINDS[kind][0], data_format=data_format) for _ in range(2))
    for layer in (theirs, back):
        layer(x)  # its `build` alone leaves it unbuilt
    scramble(theirs.weights)
    ours = from_kecam(theirs)
    for training in (True, False, True, False):
        y = ops.convert_to_numpy(ours(x, training=training))
        np.testing.assert_allclose(y, theirs(x, training=training).numpy(), rtol=1e-5, atol=1e-5)
    to_kecam(ours, back)
    for name, value in values(theirs).items():
        if (kind, name) != ("affine", "moving_variance"):
            np.testing.assert_allclose(values(back)[name], value, rtol=1e-6)


@REAL
@pytest.mark.parametrize("whole", [True, False], ids=["model", "weights"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_kecams_own_models(whole: bool, tmp_path: Path) -> None:
    import tf_keras
    from keras_cv_attention_models.attention_layers import EvoNormalization as Kecams

    check_models(tf_keras, Kecams, tf_keras.Model.save if whole else tf_keras.Model.save_weights, tmp_path)
