"""Batch statistics over the replicas of tf.distribute: two devices with half a batch each are one with the whole."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from evonorm.keras import NormActivation
from tests.keras.backends import BACKEND

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="synchronized=True is TensorFlow's")


@pytest.mark.parametrize("layer", ["evonorm-b0", "bn-relu"])
def test_two_replicas_are_one(layer: str) -> None:
    import tensorflow as tf

    x = np.random.default_rng(0).normal(0.3, 1, (8, 4, 4, 2)).astype("float32")
    dy = tf.constant(np.random.default_rng(1).normal(size=x.shape).astype("float32"))

    def step(norm: NormActivation, index: tf.Tensor, given: tf.Tensor):
        with tf.GradientTape() as tape:
            y = norm(given, training=True)
        weight, bias = (variable.value for variable in norm.trainable_variables[:2])
        return y, tape.gradient(y, [weight, bias], output_gradients=tf.gather(dy, index))

    alone = NormActivation(layer)
    alone.build(x.shape)
    whole, exact = step(alone, tf.range(8), tf.constant(x))

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        norm = NormActivation(layer, synchronized=True)
        norm.build(x.shape)
    parts = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(x, 2)[context.replica_id_in_sync_group])
    )
    places = strategy.experimental_distribute_values_from_function(
        lambda context: tf.range(4) + 4 * context.replica_id_in_sync_group
    )

    @tf.function
    def both():
        return strategy.run(step, args=(norm, places, parts))

    y, gradients = both()
    y = np.concatenate([part.numpy() for part in strategy.experimental_local_results(y)])
    np.testing.assert_allclose(y, whole.numpy(), rtol=1e-5, atol=1e-5)
    for found, expected in zip(gradients, exact, strict=True):
        total = sum(part.numpy() for part in strategy.experimental_local_results(found))
        np.testing.assert_allclose(total, expected.numpy(), rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(norm.non_trainable_variables, alone.non_trainable_variables, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs), rtol=1e-5, atol=1e-6
        )
