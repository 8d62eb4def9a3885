"""A layer's output and every gradient, whichever backend Keras has here."""

from __future__ import annotations

import keras
import numpy as np

BACKEND = keras.config.backend()

if BACKEND == "jax":
    import jax

    jax.config.update("jax_enable_x64", True)
if BACKEND == "tensorflow":
    import tensorflow as tf

    # Two devices, for test_replicas; TensorFlow takes this before it computes anything.
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)


def results(
    layer: keras.layers.Layer, x: np.ndarray, dy: np.ndarray, *, training: bool = True
) -> dict[str, np.ndarray]:
    """y, dx and the gradient of each trainable weight, by name, of a built layer; training blends its statistics."""
    trained = layer.trainable_variables
    names = ["y", "dx", *(f"d{one.name}" for one in trained)]
    if BACKEND == "tensorflow":
        given = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = layer(given, training=training)
        found = [y, *tape.gradient(y, [given, *(one.value for one in trained)], output_gradients=tf.constant(dy))]
    elif BACKEND == "jax":

        @jax.jit  # one thing to compile, in the place of each operation
        def everything(x, weights, held, dy):
            def forward(x, weights):
                return layer.stateless_call(weights, held, x, training=training)

            y, backward, changed = jax.vjp(forward, x, weights, has_aux=True)
            return y, *backward(dy), changed

        values = [[one.value for one in group] for group in (trained, layer.non_trainable_variables)]
        y, dx, gradients, changed = everything(x, *values, dy)
        for one, value in zip(layer.non_trainable_variables, changed, strict=True):
            one.assign(value)
        found = [y, dx, *gradients]
    else:
        import torch

        given = torch.from_numpy(x).requires_grad_()
        y = layer(given, training=training)
        y.backward(torch.from_numpy(dy))
        found = [y.detach(), given.grad, *(one.value.grad for one in trained)]
    return {name: np.asarray(value) for name, value in zip(names, found, strict=True)}
