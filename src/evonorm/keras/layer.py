"""NormActivation in Keras: every layer of the table, by the text of its formula."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from evonorm.keras.statistics import Statistics, function
from evonorm.layers import table
from evonorm.layers.arguments import real
from evonorm.layers.formula import parse
from evonorm.layers.groups import groups_in_force

_FORMATS = ("channels_last", "channels_first")


@keras.saving.register_keras_serializable(package="evonorm")
class NormActivation(keras.layers.Layer):  # type: ignore[misc]
    """Normalization and activation in one Keras layer, in the place of BatchNormalization and the Activation after it.

    y = formula of `layer`; for evonorm-s0, x * sigmoid(v * x) / std_group(x) * weight + bias. x, y: (N, *, C) with
    data_format="channels_last", (N, C, *) with "channels_first" (default: Keras's own setting), one to three spatial
    dimensions. y has the layer's compute dtype; in between it is float32 or, for float64, float64.

    layer: a name of the table (`evonorm layers`), or one that evonorm.add_layer added. groups, group_size, fit_groups,
    activate, eps: as in evonorm.NormActivation. momentum: as in torch the weight of the newest batch in running
    statistics, running = (1 - momentum) * running + momentum * batch; BatchNormalization's momentum is 1 - this.
    synchronized: batch statistics over all replicas of a tf.distribute strategy, on TensorFlow alone, as in
    BatchNormalization; on JAX with keras.distribution a batch is whole without it. own: Keras's name, dtype, trainable.

    Weights, each (C,), called as in the torch module and only where the layer has them: weight (1), bias (0), v (1),
    tau (0), an added layer's own; running_mean (0), running_var (1), not trainable. As with BatchNormalization,
    trainable=False freezes the running statistics and puts them in the place of the batch's.

    A model saved with an added layer holds its formula's text, and adds it where it is loaded.

    Raises ValueError if the layer is unknown, its formula calls what text cannot name, groups does not divide C, x has
    no or more than three spatial dimensions, or a number is out of range; TypeError if one is none.
    Source: arXiv 2004.02967, and each row of the table.
    """

    def __init__(
        self,
        layer: str = "evonorm-s0",
        *,
        groups: int = 32,
        group_size: int | None = None,
        fit_groups: bool = False,
        activate: bool = True,
        eps: float | None = None,
        momentum: float = 0.1,
        data_format: str | None = None,
        synchronized: bool = False,
        **own: Any,
    ) -> None:
        super().__init__(**own)
        row = table.get(layer)
        self.layer = layer
        self.groups = groups
        self.group_size = group_size
        self.fit_groups = fit_groups
        self.activate = activate
        self.eps = row.eps if eps is None else real("eps", eps)
        self.momentum = real("momentum", momentum, at_most=1.0)
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in _FORMATS:
            raise ValueError(f"data_format must be one of {', '.join(_FORMATS)}: got {data_format!r}")
        if synchronized and keras.config.backend() != "tensorflow":
            raise ValueError(
                "synchronized=True is of TensorFlow's tf.distribute: this is Keras on "
                f"{keras.config.backend()}; leave it out"
            )
        self.synchronized = synchronized
        self._used = row.read(activate=activate)
        try:  # on torch by torch's own functions: some of Keras's compute in float32 there, float64 or not
            self._formula: Any = parse(self._used.text, None if keras.config.backend() == "torch" else function)
        except ValueError as error:
            raise ValueError(f"{layer} cannot be evaluated by Keras: {error}") from error
        # The names of its weights, once they are made.
        self._named: tuple[str, ...] = ()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights for x of this shape."""
        rank, axis = len(input_shape), self._axis(len(input_shape))
        if not 3 <= rank <= 5:
            raise ValueError(f"x must have one to three spatial dimensions: got x of shape {tuple(input_shape)}")
        channels = input_shape[axis]
        if channels is None:
            raise ValueError(f"the number of channels must be known: got x of shape {tuple(input_shape)}")
        row = table.get(self.layer)
        self.channels = channels
        self.groups_in_force = (
            groups_in_force(channels, self.groups, self.group_size, fit=self.fit_groups) if row.grouped else 1
        )
        initial = {"weight": 1.0, "bias": 0.0} if row.affine else {}
        initial |= {name: row.parameters[name] for name in self._used.parameters}
        running = {name: float(name == "running_var") for name in self._used.running}
        # Built a second time it has them itself, and Keras says so below.
        if not self._named and (taken := [name for name in initial if hasattr(self, name)]):
            raise ValueError(
                f"{self.layer}: a parameter cannot be called {taken[0]!r}, which every Keras layer has; rename it"
            )
        for name, value in {**initial, **running}.items():
            trainable = name not in running
            weight = self.add_weight(
                name=name,
                shape=(channels,),
                initializer=keras.initializers.Constant(value),
                trainable=trainable,
                autocast=False,
                aggregation="none" if trainable else "mean",
            )
            setattr(self, name, weight)
        self._named = (*initial, *running)
        place = axis if self.data_format == "channels_first" else -1
        self.input_spec = keras.layers.InputSpec(min_ndim=3, max_ndim=5, axes={place: channels})

    def call(self, x: Any, training: bool | None = None) -> Any:
        """x, y: (N, *, C) or (N, C, *)."""
        dtype = "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"
        axis = self._axis(x.ndim)
        shape = [1] * x.ndim
        shape[axis] = -1
        weights = {name: ops.reshape(ops.cast(getattr(self, name), dtype), shape) for name in self._named}
        takes_batch = bool(training) and self.trainable
        statistics = Statistics(
            ops.cast(x, dtype),
            axis=axis,
            eps=self.eps,
            groups=self.groups_in_force,
            running=None if takes_batch else weights,
            synchronized=self.synchronized,
        )

        def affine(t: Any, /, *, over: Any = None) -> Any:
            return t * (weights["weight"] if over is None else weights["weight"] / over) + weights["bias"]

        row = table.get(self.layer)
        own = row.own(**{name: weights.get(name) for name in row.parameters})
        y = self._formula(statistics.x, statistics, own, affine)
        if row.added and tuple(y.shape) != tuple(x.shape):
            raise ValueError(
                f"{self.layer} must give one value for each of x: its formula gives {tuple(y.shape)} for x of "
                f"{tuple(x.shape)}"
            )
        if statistics.batch is not None:
            self._blend(*statistics.batch)
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """As x's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments, and what an added layer is."""
        row = table.get(self.layer)
        return {
            **super().get_config(),
            "layer": self.layer,
            "groups": self.groups,
            "group_size": self.group_size,
            "fit_groups": self.fit_groups,
            "activate": self.activate,
            "eps": self.eps,
            "momentum": self.momentum,
            "data_format": self.data_format,
            "synchronized": self.synchronized,
            **({"added": {"specification": row.specification, "source": row.source}} if row.added else {}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NormActivation:
        """The layer of get_config. Raises ValueError if it was added, and another is called so here."""
        config = dict(config)
        if (added := config.pop("added", None)) is not None:
            table.add_specified(config["layer"], **added)
        return cls(**config)

    def _axis(self, rank: int) -> int:
        return 1 if self.data_format == "channels_first" else rank - 1

    def _blend(self, mean: Any, var: Any, count: Any) -> None:
        """As running.blend: rows that torch has itself keep the unbiased variance, an empty batch leaves no trace."""
        if table.get(self.layer).native is not None:
            var = var * (count / ops.maximum(count - 1, 1))
        for name, batch in (("running_mean", mean), ("running_var", var)):
            if name in self._used.running:
                variable = getattr(self, name)
                running = ops.convert_to_tensor(variable)
                batch = ops.cast(ops.reshape(batch, (-1,)), running.dtype)
                blended = (1 - self.momentum) * running + self.momentum * batch
                variable.assign(ops.where(count > 0, blended, running))
