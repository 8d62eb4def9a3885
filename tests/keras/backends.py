"""A layer's output and every gradient, whichever backend Keras has here."""

from __future__ import annotations

import keras
import numpy as np

BACKEND = keras.config.backend()


def enable_float64() -> None:
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)


def results(layer: keras.layers.Layer, x: np.ndarray, dy: np.ndarray, *, training: bool = True) -> dict[str, np.ndarray]:
    """y, dx and the gradient of each trainable weight, by name, of a built layer; in training, running statistics are blended."""
    trained = layer.trainable_variables
    names = ["y", "dx", *(f"d{one.name}" for one in trained)]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        given = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = layer(given, training=training)
        found = [y, *tape.gradient(y, [given, *(one.value for one in trained)], output_gradients=tf.constant(dy))]
    elif BACKEND == "jax":
        import jax

        def forward(x, weights):
            held = [one.value for one in layer.non_trainable_variables]
            y, changed = layer.stateless_call(weights, held, x, training=training)
            return y, changed

        y, backward, changed = jax.vjp(forward, x, [one.value for one in trained], has_aux=True)
        dx, gradients = backward(dy)
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
