"""The converter for Keras: what it replaces, what it keeps and why, and the weights it carries over."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from evonorm.keras import NormActivation, convert

LAYERS = keras.layers


def branching() -> keras.Model:
    """Every way for a norm to be followed."""
    given = keras.Input((8, 8, 3))
    x = LAYERS.Conv2D(8, 3, padding="same", use_bias=False)(given)
    x = skip = LAYERS.ReLU(6.0, name="plain_relu")(LAYERS.BatchNormalization(name="plain", momentum=0.9)(x))
    x = LAYERS.BatchNormalization(name="before_add")(LAYERS.Conv2D(8, 3, padding="same")(x))
    x = LAYERS.Activation("relu")(LAYERS.Add(name="sum")([x, skip]))
    x = LAYERS.BatchNormalization(name="forked")(x)
    x = LAYERS.Add()([LAYERS.Activation("silu")(x), x])
    shared = LAYERS.Activation("relu", name="shared_relu")
    x = shared(LAYERS.BatchNormalization(name="first")(x))
    x = shared(LAYERS.BatchNormalization(name="second")(LAYERS.Conv2D(8, 1)(x)))
    twice = LAYERS.BatchNormalization(name="twice")
    x = LAYERS.Activation("relu")(twice(LAYERS.Activation("relu")(twice(x))))
    x = LAYERS.Activation("sigmoid", name="gate")(LAYERS.BatchNormalization(name="before_gate")(x))
    x = LAYERS.Activation("relu")(LAYERS.BatchNormalization(name="rows", axis=2)(x))
    x = keras.ops.relu(LAYERS.BatchNormalization(name="before_function")(x))
    x = LAYERS.Activation("relu")(LAYERS.LayerNormalization(name="other")(x))
    inner = keras.Sequential(
        [keras.Input((8, 8, 8)), LAYERS.BatchNormalization(name="within"), LAYERS.Activation("swish", name="swish")],
        name="inner",
    )
    x = inner(x)
    last = LAYERS.BatchNormalization(name="last")(x)
    flat = LAYERS.BatchNormalization(name="flat")(LAYERS.GlobalAveragePooling2D()(x))
    return keras.Model(given, [LAYERS.Activation("relu")(flat), last], name="branching")


def test_every_norm_is_accounted_for() -> None:
    model = branching()
    converted, account = convert(model, "evonorm-s0", groups=4)
    assert {site.name: site.what for site in account.sites} == {
        "plain": "replaced with plain_relu (ReLU)",
        "before_add": "kept: sum (Add) follows",
        "forked": "kept: 2 layers follow",
        "first": "kept: shared_relu follows, which is called 2 times",
        "second": "kept: shared_relu follows, which is called 2 times",
        "twice": "kept: it is called 2 times",
        "before_gate": "kept: gate (Activation) follows",
        "rows": "kept: it normalizes axis 2, which is not the channels'",
        "before_function": "kept: relu (Relu) follows",
        "other": "kept: only BatchNormalization is exchanged",
        "inner/within": "replaced with swish (silu)",
        "flat": "kept: its input has 0 spatial dimensions",
        "last": "kept: the model's output follows",
    }
    assert str(account).splitlines()[0] == "branching: evonorm-s0 in the place of 2 of 13 normalizations, 11 kept"
    assert isinstance(converted.get_layer("plain"), NormActivation)
    assert isinstance(converted.get_layer("plain_relu"), LAYERS.Identity)
    assert isinstance(converted.get_layer("inner").get_layer("within"), NormActivation)
    assert isinstance(model.get_layer("plain"), LAYERS.BatchNormalization)


def test_what_means_the_same_computes_the_same() -> None:
    """bn-relu in the place of BatchNormalization and ReLU: the same network, in evaluation and with its weights."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            LAYERS.Normalization(mean=0.3, variance=2.0),
            LAYERS.Conv2D(5, 3),
            LAYERS.BatchNormalization(name="norm", momentum=0.9, scale=False),
            LAYERS.ReLU(),
            LAYERS.DepthwiseConv2D(3),
        ]
    )
    for weight in model.get_layer("norm").weights:
        weight.assign(np.random.default_rng(1).uniform(0.5, 2, weight.shape))
    converted, _ = convert(model, "bn-relu")
    layer = converted.get_layer("norm")
    assert (layer.eps, layer.momentum) == (1e-3, pytest.approx(0.1))
    x = np.random.default_rng(2).normal(size=(2, 6, 6, 3)).astype("float32")
    one, other = (keras.ops.convert_to_numpy(each(x)) for each in (model, converted))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert converted.count_params() == model.count_params() + 5  # the weight that scale=False left out


def test_a_network_of_keras_applications() -> None:
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=2)
    converted, account = convert(model, "evonorm-b0")
    assert (len(account.replaced), len(account.sites)) == (35, 52)
    assert all(site.name.endswith("project_BN") for site in account.sites if not site.replaced)
    assert sum(isinstance(layer, NormActivation) for layer in converted.layers) == 35
    y = keras.ops.convert_to_numpy(converted(np.ones((1, 32, 32, 3), "float32")))
    assert y.shape == (1, 2)
    assert np.isfinite(y).all()


def test_what_cannot_be_followed() -> None:
    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match="own is a Own: only Sequential and functional models can be followed"):
        convert(Own(name="own"))
    with pytest.raises(ValueError, match="no layer is called 'evonorm-x'"):
        convert(branching(), "evonorm-x")
