"""The layer in models: saved, cloned, subclassed, trained, compiled with sizes left open."""

from __future__ import annotations

from unittest import mock

import keras
import numpy as np
import pytest

import evonorm
from evonorm.keras import NormActivation
from evonorm.layers import table
from evonorm.layers.table import NormAct
from tests.keras.backends import BACKEND, compiled
from tests.keras.test_layer import ROWS, SHAPE, expected, noise, scrambled


@mock.patch.dict(table._ROWS)
def test_a_saved_model_comes_back(tmp_path) -> None:
    evonorm.add_layer("rms", "x * sigmoid(k * x) / rms_group * weight + bias", initial={"k": 1.0})
    model = keras.Sequential(
        [
            keras.Input((6, 6, 8)),
            NormActivation("rms", group_size=4),
            NormActivation("evonorm-b0", eps=1e-3, momentum=0.01, name="second"),
        ]
    )
    for layer in model.layers:
        scrambled(layer, (None, 6, 6, 8))
    model.save(tmp_path / "model.keras")
    table._ROWS.pop("rms")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = noise(4, 6, 6, 8).astype("float32")
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, compiled(lambda x: (model(x), again(x)))(x)))
    assert again.get_layer("second").get_config() == model.get_layer("second").get_config()


class Own(keras.Model):
    """Subclassed: its layer is made in __init__, and built when it is called."""

    def __init__(self, **own) -> None:
        super().__init__(**own)
        self.norm = NormActivation("evonorm-b0", name="norm")

    def call(self, x, training=None):
        return self.norm(x, training=training)


def test_subclassed_and_cloned_models_have_the_layer(tmp_path) -> None:
    model = Own(name="own")
    model(keras.Input((6, 6, 8)))
    scrambled(model.norm, (None, 6, 6, 8))
    model.save(tmp_path / "own.keras")
    again = keras.saving.load_model(tmp_path / "own.keras", custom_objects={"Own": Own})
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    whole = keras.Sequential([keras.Input((None, None, 8)), NormActivation("evonorm-s0", group_size=2, name="norm")])
    cloned = keras.models.clone_model(whole).get_layer("norm")
    assert cloned.get_config() == whole.get_layer("norm").get_config()
    assert cloned.groups_in_force == 4
    with pytest.raises(ValueError, match="already built"):
        cloned.build((None, 6, 6, 8))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere no size is open in what is compiled")
@ROWS
def test_compiled_by_xla_with_every_size_open(row: NormAct) -> None:
    """Channels first, which TensorFlow's own convolutions cannot on this processor."""
    import tensorflow as tf

    layer = scrambled(NormActivation(row.name, groups=3, data_format="channels_first"), SHAPE)
    x = noise(*SHAPE).astype("float32")
    wanted = expected(layer, x, x)
    of_layer = tf.function(lambda x: layer(x, training=True), jit_compile=True)
    y = of_layer.get_concrete_function(tf.TensorSpec((None, 6, None, None)))(tf.constant(x))
    found = {"y": y.numpy(), **{w.name: w.numpy() for w in layer.non_trainable_weights}}
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], rtol=4e-6, atol=4e-6 * np.abs(wanted[name]).max())


def test_it_trains_compiled_with_sizes_left_open() -> None:
    """Through fit: graph and jit where the backend has them; batch and space are unknown when the graph is made."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(8, 3),
            NormActivation("evonorm-b0"),
            NormActivation("bn-relu"),
            NormActivation("evonorm-s0", groups=2),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    before = [w.numpy() for w in model.weights]
    images = 16 if BACKEND == "jax" else 20  # where sizes cannot be open, a shorter batch is compiled anew
    history = model.fit(noise(images, 6, 6, 3), noise(images, 1), batch_size=8, epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]
    same = [w.path for w, old in zip(model.weights, before, strict=True) if (w.numpy() == old).all()]
    assert not same
