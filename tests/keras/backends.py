"""Layers' outputs and every gradient, whichever backend Keras has here."""

from __future__ import annotations

from collections.abc import Iterator

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
    *cases: tuple[keras.layers.Layer, np.ndarray, np.ndarray], training: bool = True
) -> list[dict[str, np.ndarray]]:
    """Of each built layer with its x and dy: y, dx and the gradient of each trainable weight, by name.

    Training blends running statistics.
    """
    layers = [layer for layer, _, _ in cases]
    names = [["y", "dx", *(f"d{one.name}" for one in layer.trainable_variables)] for layer in layers]
    values = {"tensorflow": _tensorflows, "jax": _jaxs, "torch": _torchs}[BACKEND](cases, training)
    return [
        {name: np.asarray(value) for name, value in zip(*each, strict=True)} for each in zip(names, values, strict=True)
    ]


def _tensorflows(cases, training: bool) -> Iterator[list]:
    for layer, x, dy in cases:
        given = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = layer(given, training=training)
        sources = [given, *(one.value for one in layer.trainable_variables)]
        yield [y, *tape.gradient(y, sources, output_gradients=tf.constant(dy))]


def _jaxs(cases, training: bool) -> Iterator[list]:
    @jax.jit  # one thing to compile, in the place of each operation of each layer
    def everything(given):
        found = []
        for (layer, _, _), (x, weights, held, dy) in zip(cases, given, strict=True):

            def forward(x, weights, layer=layer, held=held):
                return layer.stateless_call(weights, held, x, training=training)

            y, backward, changed = jax.vjp(forward, x, weights, has_aux=True)
            found.append((y, *backward(dy), changed))
        return found

    def values(variables) -> list:
        return [one.value for one in variables]

    given = [(x, values(one.trainable_variables), values(one.non_trainable_variables), dy) for one, x, dy in cases]
    for (layer, _, _), (y, dx, gradients, changed) in zip(cases, everything(given), strict=True):
        for one, value in zip(layer.non_trainable_variables, changed, strict=True):
            one.assign(value)
        yield [y, dx, *gradients]


def _torchs(cases, training: bool) -> Iterator[list]:
    import torch

    for layer, x, dy in cases:
        given = torch.from_numpy(x).requires_grad_()
        y = layer(given, training=training)
        y.backward(torch.from_numpy(dy))
        yield [y.detach(), given.grad, *(one.value.grad for one in layer.trainable_variables)]


def compiled(function):
    """The function of arrays, for JAX as one thing to compile; what it assigns to variables is lost there."""
    if BACKEND != "jax":
        return function

    def alone(*arrays):
        with keras.StatelessScope():
            return function(*arrays)

    return jax.jit(alone)
