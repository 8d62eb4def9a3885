"""Weights between Keras and torch, by name: a layer, or a model whose layers are called by the torch model's paths.

Keras on torch allows no dot in a layer's name, so that `stem.conv.weight` is `stem_conv_weight` here, on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from evonorm.keras.layer import NormActivation
from evonorm.layers import table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from evonorm.layers.modules import NormActivation as TorchLayer

# What torch calls the weights of Keras's layers; those of NormActivation are called alike.
_TORCHS = {"kernel": "weight", "gamma": "weight", "beta": "bias"} | {
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_KNOWN = (
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense),
    *(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
    *(keras.layers.BatchNormalization, NormActivation),
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


def to_torch(source: Any, target: nn.Module | None = None) -> nn.Module:
    """The torch module like a built layer `source`; or `target`, given the weights of the Keras model `source`.

    With a target, each layer of `source` with weights must be called as the path of a module in `target`, with `_` for
    `.`: `stem_conv` for `stem.conv`; in a nested model, after the nested model's name and `_`. Kernels are turned into
    torch's order. A Dense that reads flattened maps means the same in both only if they are of one pixel, or channels
    first.

    Raises ValueError if the layer is not built, a layer's kind is not known here, or a weight on either side has no
    counterpart or another shape; then nothing has changed.
    """
    import torch

    if target is None:
        if not isinstance(source, NormActivation):
            raise ValueError(f"a {type(source).__name__} needs a target: to_torch(model, torch_model)")
        target = _torch_like(source)
        entries = _of_layer("", source)
    else:
        entries = _entries(source)
    state = _state(target)
    found = {name: _outward(layer, variable) for name, (layer, variable) in entries.items()}
    compare(
        {name: value.shape for name, value in found.items()},
        {name: tuple(t.shape) for name, t in state.items()},
        "torch",
    )
    with torch.no_grad():
        for name, value in found.items():
            state[name].copy_(torch.from_numpy(value.copy()))
    return target


def from_torch(source: nn.Module, target: Any = None, **own: Any) -> Any:
    """The Keras layer like an evonorm.NormActivation `source`, built; or `target`, given the weights of `source`.

    own: arguments of the Keras layer beside those that `source` fixes, as data_format. With a target, a model, as in
    to_torch. Raises ValueError as to_torch does, and if `source` averages over all batches (momentum=None).
    """
    if target is None:
        target = _keras_like(source, **own)
        entries = _of_layer("", target)
    else:
        entries = _entries(target)
    state = _state(source)
    shapes = {name: _outward(layer, variable).shape for name, (layer, variable) in entries.items()}
    compare(shapes, {name: tuple(t.shape) for name, t in state.items()}, "torch")
    for name, (layer, variable) in entries.items():
        variable.assign(_inward(layer, state[name].double().cpu().numpy(), tuple(variable.shape)))
    return target


def _torch_like(layer: NormActivation) -> TorchLayer:
    from evonorm.layers.modules import NormActivation as TorchLayer

    if not layer.built:
        raise ValueError(f"{layer.name} has no weights yet: call it, or build it with the shape of its input")
    return TorchLayer(
        layer.channels,
        layer.layer,
        groups=layer.groups_in_force,
        activate=layer.activate,
        eps=layer.eps,
        momentum=layer.momentum,
    )


def _keras_like(module: Any, **own: Any) -> NormActivation:
    if type(module).__name__ != "NormActivation":
        raise ValueError(f"a {type(module).__name__} needs a target: from_torch(torch_model, model)")
    if module.momentum is None:
        raise ValueError("momentum=None, an average over all batches, has no counterpart in Keras; set a momentum")
    layer = NormActivation(
        module.layer,
        groups=module.groups,
        activate=module.activate,
        eps=module.eps,
        momentum=module.momentum,
        **own,
    )
    shape = (None, None, None, module.channels)
    layer.build(shape if layer.data_format == "channels_last" else (None, module.channels, None, None))
    return layer


def _state(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters and buffers, but for those that have no use.

    Torch's norms count batches, which a fixed momentum does not ask for; timm's B layers keep a running variance
    without their activation too, where nothing reads it.
    """
    unread = {
        f"{path}.running_var".removeprefix(".")
        for path, part in module.named_modules()
        if type(part).__name__ == "NormActivation" and not table.get(part.layer).read(activate=part.activate).running
    }
    state = {
        name: t
        for name, t in module.state_dict().items()
        if name.rpartition(".")[2] != "num_batches_tracked" and name not in unread
    }
    renamed = {name.replace(".", "_"): t for name, t in state.items()}
    if len(renamed) < len(state):
        raise ValueError(f"two paths of {type(module).__name__} are one when `.` is written `_`")
    return renamed


def _entries(model: Any) -> dict[str, tuple[Any, Any]]:
    """Layer and variable of each weight of a Keras model, by torch's name for it."""
    found: dict[str, tuple[Any, Any]] = {}
    for path, layer in _layers(model, ""):
        if not isinstance(layer, _KNOWN):
            known = ", ".join(kind.__name__ for kind in _KNOWN)
            raise ValueError(f"{path} is a {type(layer).__name__}, whose weights are not known here; {known} are")
        found |= _of_layer(f"{path}_", layer)
    return found


def _layers(model: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer, f"{prefix}{layer.name}_")
        elif layer.weights:
            yield f"{prefix}{layer.name}", layer


def _of_layer(prefix: str, layer: Any) -> dict[str, tuple[Any, Any]]:
    return {f"{prefix}{_TORCHS.get(one.name, one.name)}": (layer, one) for one in layer.weights}


def _outward(layer: Any, variable: Any) -> np.ndarray:
    """A weight in torch's order: (*space, inputs, outputs) -> (outputs, inputs, *space), depthwise ones each alone."""
    value: np.ndarray = keras.ops.convert_to_numpy(variable.value)
    if value.ndim == 1:
        return value
    if isinstance(layer, _DEPTHWISE):
        return np.moveaxis(value.reshape(*value.shape[:-2], 1, -1), (-1, -2), (0, 1))
    return np.moveaxis(value, (-1, -2), (0, 1))


def _inward(layer: Any, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of _outward."""
    return value if value.ndim == 1 else np.moveaxis(value, (0, 1), (-1, -2)).reshape(shape)


def compare(kerass: dict[str, tuple[int, ...]], others: dict[str, tuple[int, ...]], other: str) -> None:
    """Raises ValueError unless both sides, by their weights' names, have the same shapes; other: the other's name."""
    for one, counterparts, side in ((kerass, others, other), (others, kerass, "Keras")):
        if alone := [name for name in one if name not in counterparts]:
            raise ValueError(f"{len(alone)} weights have no counterpart in {side}: {', '.join(alone[:5])}")
    for name, shape in kerass.items():
        if shape != others[name]:
            raise ValueError(
                f"{name} has the shape {shape} in Keras and {others[name]} in {other}, both in {other}'s order"
            )
