"""The converter for Keras: BatchNormalization and the activation after it as one layer, every site accounted for."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras

from evonorm.keras.layer import NormActivation
from evonorm.layers import table

_NORMS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.UnitNormalization,
)
_ACTIVATIONS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.PReLU)
# As in evonorm.convert: not linear, and not bounded by 1 on both sides, which gates are.
_FUNCTIONS = ("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hard_silu", "softplus")
_OUTPUT = "the model's output"


class Site(NamedTuple):
    """A normalization: its layer's name, its class, what became of it, and whether it was replaced."""

    name: str
    norm: str
    what: str
    replaced: bool


@dataclass(frozen=True)
class Account:
    """What became of every normalization of a model; `str(account)` tells it."""

    model_name: str
    layer: str
    sites: tuple[Site, ...]

    @property
    def replaced(self) -> tuple[Site, ...]:
        """The sites that were replaced."""
        return tuple(site for site in self.sites if site.replaced)

    def __str__(self) -> str:
        done, every = len(self.replaced), len(self.sites)
        head = f"{self.model_name}: {self.layer} in the place of {done} of {every} normalizations, {every - done} kept"
        name_width = max((len(site.name) for site in self.sites), default=0)
        norm_width = max((len(site.norm) for site in self.sites), default=0)
        lines = [f"  {site.name:{name_width}}  {site.norm:{norm_width}}  {site.what}" for site in self.sites]
        return "\n".join([head, *lines])


class Converted(NamedTuple):
    """The new model, and the account of it."""

    model: keras.Model
    account: Account


def convert(
    model: keras.Model,
    layer: str = "evonorm-s0",
    *,
    groups: int = 32,
    group_size: int | None = None,
    fit_groups: bool = True,
    eps: float | None = None,
    momentum: float | None = None,
) -> Converted:
    """A new model with `layer` in the place of each BatchNormalization that one activation alone follows, and of that.

    model: Sequential or functional, built; models within it are converted too. It is untouched. Weights are carried
    over, the norm's to those of `layer` that mean the same. The activation's place is taken by an Identity of its name,
    so that layers are found as before. A norm that anything else follows, as an addition, is kept, and so is one that
    is called more than once; an activation is never added. The other arguments are NormActivation's; eps: default the
    norm's own for bn-*, else the layer's; momentum: default the norm's, counted as torch does.

    Raises ValueError if the model is of another kind or not built, the layer is unknown, or groups does not divide the
    channels of a site and fit_groups is off.
    """
    row = table.get(layer)
    graph = _Graph(model)
    found = {id(norm): _decide(norm, path, graph) for norm, path in graph.norms}
    gone = {id(after) for site, after in found.values() if site.replaced}
    replaced = {number for number, (site, _) in found.items() if site.replaced}
    made: list[tuple[Any, Any]] = []

    def exchanged(old: Any) -> Any:
        if id(old) in gone:
            return keras.layers.Identity(name=old.name, dtype=old.dtype_policy)
        if id(old) in replaced:
            new = NormActivation(
                layer,
                groups=groups,
                group_size=group_size,
                fit_groups=fit_groups,
                eps=old.epsilon if eps is None and row.native == "batch_norm" else eps,
                momentum=1 - old.momentum if momentum is None else momentum,
                data_format=_data_format(old),
                name=old.name,
                dtype=old.dtype_policy,
                trainable=old.trainable,
            )
        else:
            new = type(old).from_config(old.get_config())
        if isinstance(old, keras.layers.Layer):  # and no operation called as a function
            made.append((old, new))
        return new

    def called(new: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(new, NormActivation):
            kwargs.pop("mask", None)  # BatchNormalization takes one, None where there is none
        return new(*args, **kwargs)

    call = None if isinstance(model, keras.Sequential) else called
    clone = keras.models.clone_model(model, clone_function=exchanged, call_function=call, recursive=True)
    for old, new in made:
        _carry(old, new)
    return Converted(clone, Account(model.name, layer, tuple(site for site, _ in found.values())))


def _carry(old: Any, new: Any) -> None:
    """The weights of a layer to the one in its place."""
    if type(old) is type(new):
        new.set_weights(old.get_weights())
        if isinstance(new, keras.layers.Normalization):
            new.finalize_state()
        return
    for theirs, ours in (
        ("gamma", "weight"),
        ("beta", "bias"),
        ("moving_mean", "running_mean"),
        ("moving_variance", "running_var"),
    ):
        value = getattr(old, theirs)
        if value is not None and getattr(new, ours, None) is not None:
            getattr(new, ours).assign(value)


class _Graph:
    """What follows what in a model and the models within it.

    norms: normalizations with their paths, in the model's order. followers: what reads a layer's output, by the
    layer's id: layers, operations or _OUTPUT. calls: how often a layer is called, by its id.
    """

    def __init__(self, model: Any) -> None:
        self.norms: list[tuple[Any, str]] = []
        self.followers: dict[int, list[Any]] = defaultdict(list)
        self.calls: Counter[int] = Counter()
        self._seen: set[int] = set()
        self._add(model, "")

    def _add(self, model: Any, prefix: str) -> None:
        if isinstance(model, keras.Sequential):
            links = list(zip(model.layers, [*model.layers[1:], _OUTPUT], strict=True))
            called = model.layers
        elif hasattr(model, "_nodes_by_depth"):
            nodes = [node for level in model._nodes_by_depth.values() for node in level]
            links = [(parent.operation, node.operation) for node in nodes for parent in node.parent_nodes]
            links += [(output._keras_history.operation, _OUTPUT) for output in keras.tree.flatten(model.outputs)]
            called = [node.operation for node in nodes]
        else:
            raise ValueError(
                f"{model.name} is a {type(model).__name__}: only Sequential and functional models can be followed"
            )
        for one, after in links:
            self.followers[id(one)].append(after)
        self.calls.update(map(id, called))
        for layer in model.layers:
            if id(layer) in self._seen:
                continue
            self._seen.add(id(layer))
            if isinstance(layer, keras.Model):
                self._add(layer, f"{prefix}{layer.name}/")
            elif isinstance(layer, _NORMS):
                self.norms.append((layer, f"{prefix}{layer.name}"))


def _decide(norm: Any, path: str, graph: _Graph) -> tuple[Site, Any]:
    """The site, and the activation that goes with the norm if it is replaced."""
    after = graph.followers[id(norm)]
    kept = _kept(norm, after, graph)
    what = f"kept: {kept}" if kept else f"replaced with {after[0].name} ({_activation(after[0])})"
    return Site(path, type(norm).__name__, what, not kept), None if kept else after[0]


def _kept(norm: Any, after: list[Any], graph: _Graph) -> str | None:
    """Why a norm is kept, or None."""
    if not isinstance(norm, keras.layers.BatchNormalization):
        return "only BatchNormalization is exchanged"
    if not norm.built:
        raise ValueError(f"{norm.name} is not built: build the model with the shape of its input first")
    if not 3 <= norm.input_spec.ndim <= 5:
        return f"its input has {norm.input_spec.ndim - 2} spatial dimensions"
    if _data_format(norm) is None:
        return f"it normalizes axis {norm.axis}, which is not the channels'"
    if getattr(norm, "renorm", False):
        return "it renormalizes"
    if graph.calls[id(norm)] != 1:
        return f"it is called {graph.calls[id(norm)]} times"
    if len(after) != 1:
        return f"{len(after)} layers follow"
    if after[0] is _OUTPUT:
        return f"{_OUTPUT} follows"
    if _activation(after[0]) is None:
        return f"{after[0].name} ({type(after[0]).__name__}) follows"
    if graph.calls[id(after[0])] != 1:
        return f"{after[0].name} follows, which is called {graph.calls[id(after[0])]} times"
    return None


def _activation(layer: Any) -> str | None:
    """What an activation layer is called, or None if it is none."""
    if isinstance(layer, _ACTIVATIONS):
        return type(layer).__name__
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    return name if isinstance(layer, keras.layers.Activation) and name in _FUNCTIONS else None


def _data_format(norm: Any) -> str | None:
    """Where a norm has its channels; None: nowhere that a layer of the table has."""
    if norm.axis in (-1, norm.input_spec.ndim - 1):
        return "channels_last"
    return "channels_first" if norm.axis == 1 else None
