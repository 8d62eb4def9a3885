"""What a formula asks of a feature map, with keras.ops: the statistics of layers.statistics, channels last or first."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class Statistics:
    """The statistics of x: (N, *, C) or (N, C, *), each shaped to broadcast against x.

    axis: where x has its channels. As in layers.statistics, variances are biased, centred before squaring, and
    standard deviations and root mean squares are sqrt(second moment + eps). running: mean and variance by name, shaped
    to broadcast, where they stand in for the batch's. synchronized: batch statistics over all replicas of TensorFlow's
    tf.distribute. Nothing is changed: `batch` is what was taken of the batch.
    """

    def __init__(
        self,
        x: Any,
        *,
        axis: int,
        eps: float,
        groups: int = 1,
        running: dict[str, Any] | None = None,
        synchronized: bool = False,
    ) -> None:
        self.x = x
        self.axis = axis
        self.eps = eps
        self.groups = groups
        self.running = running
        self.synchronized = synchronized
        # Mean and biased variance of the batch, and the values a channel that they are taken over.
        self.batch: tuple[Any, Any, Any] | None = None
        self.space = tuple(number for number in range(1, x.ndim) if number != axis)
        self._moments: tuple[Any, Any] | None = None

    def instance_mean(self) -> Any:
        """Over space, per sample and channel."""
        return self._instance()[0]

    def instance_std(self) -> Any:
        """Over space, per sample and channel."""
        return self._root(self._instance()[1])

    def instance_rms(self) -> Any:
        """Root mean square over space, per sample and channel."""
        return self._root(self._instance_square())

    def group_mean(self) -> Any:
        """Over space and a group's channels, per sample; equal within a group."""
        return self._spread(self._over_group(self._instance()[0]))

    def group_std(self) -> Any:
        """Over space and a group's channels, per sample; equal within a group."""
        # Law of total variance, as in layers.statistics: the map is read once, and not reshaped.
        mean, var = map(self._grouped, self._instance())
        return self._spread(self._root(_mean(var + ops.square(mean - _mean(mean, (2,))), (2,))))

    def group_rms(self) -> Any:
        """Root mean square over space and a group's channels, per sample; equal within a group."""
        return self._spread(self._root(self._over_group(self._instance_square())))

    def batch_mean(self) -> Any:
        """Over batch and space, per channel; or the running mean."""
        return self._batch()[0] if self.running is None else self.running["running_mean"]

    def batch_std(self) -> Any:
        """Over batch and space, per channel; or from the running variance."""
        return self._root(self._batch()[1] if self.running is None else self.running["running_var"])

    def _batch(self) -> tuple[Any, Any, Any]:
        if self.batch is None:
            means, variances = self._instance()
            mean = self._over_batch(means)
            var = self._over_batch(variances + ops.square(means - mean))
            self.batch = mean, var, self._count_of_batch()
        return self.batch

    def _over_batch(self, t: Any) -> Any:
        if self.synchronized:  # all samples have as many values, so that the mean of their means is the whole one
            return ops.moments(t, axes=[0], keepdims=True, synchronized=True)[0]
        return _mean(t, (0,))

    def _count_of_batch(self) -> Any:
        count = _count(self.x, (0, *self.space))
        if self.synchronized:
            import tensorflow as tf

            if (replica := tf.distribute.get_replica_context()) is not None:
                return replica.all_reduce(tf.distribute.ReduceOp.SUM, count)
        return count

    def _instance(self) -> tuple[Any, Any]:
        if self._moments is None:
            mean = _mean(self.x, self.space)
            self._moments = mean, _mean(ops.square(self.x - mean), self.space)
        return self._moments

    def _instance_square(self) -> Any:
        return _mean(ops.square(self.x), self.space)

    def _grouped(self, t: Any) -> Any:
        """(N, 1, C) or (N, C, 1), with any number of ones -> (N, groups, C / groups)."""
        return ops.reshape(t, (-1, self.groups, self.x.shape[self.axis] // self.groups))

    def _over_group(self, t: Any) -> Any:
        return _mean(self._grouped(t), (2,))

    def _spread(self, t: Any) -> Any:
        """(N, groups, 1) -> (N, 1, C) or (N, C, 1), equal within a group."""
        channels = self.x.shape[self.axis]
        shape = [-1, *[1] * (self.x.ndim - 1)]
        shape[self.axis] = channels
        return ops.reshape(ops.repeat(t, channels // self.groups, axis=2), shape)

    def _root(self, square: Any) -> Any:
        return ops.sqrt(square + self.eps)


def _count(t: Any, axes: tuple[int, ...]) -> Any:
    sizes = ops.shape(t)
    count = 1
    for number in axes:  # of a size that is open in a graph, a tensor
        count = count * sizes[number]
    return ops.cast(count, t.dtype)


def _mean(t: Any, axes: tuple[int, ...]) -> Any:
    """Over these axes, which stay. Keras's own mean computes in float32 on torch, float64 or not."""
    return ops.sum(t, axis=axes, keepdims=True) / _count(t, axes)


def function(name: str) -> Any:
    """What a name of formula.FUNCTIONS means to Keras; gelu is the exact one, as in torch."""
    if name == "gelu":
        return lambda t: ops.gelu(t, approximate=False)
    own = {"hardswish": "hard_silu", "hardsigmoid": "hard_sigmoid"}.get(name, name)
    return getattr(ops, own, None) or getattr(keras.activations, own)
