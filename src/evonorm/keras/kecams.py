"""Weights between Keras and keras_cv_attention_models, kecam for short: its EvoNormalization, and models by name.

kecam does not support Keras 3: its models are of Keras 2 (the package tf_keras), and one of Keras 3 stands beside them,
in the same process or with a file between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evonorm.keras.interchange import compare
from evonorm.keras.layer import NormActivation

# What kecam calls the weights of NormActivation; there each is (1, 1, 1, C), or (1, C, 1, 1).
_THEIRS = {"weight": "gamma", "bias": "beta", "v": "vv", "running_var": "moving_variance"}


def from_kecam(source: Any, target: Any = None, **own: Any) -> Any:
    """The Keras layer like kecam's EvoNormalization `source`, built; or `target`, given the weights of `source`.

    With num_groups above 0 it is evonorm-s0, and without nonlinearity evonorm-s0a, its activation off; else evonorm-b0,
    and without nonlinearity the affine alone. Epsilon, momentum, data format, name, dtype and `trainable` are the
    source's, but for what `own`, arguments of NormActivation, says. Outputs are kecam's on TensorFlow to rounding, also
    in training; but a frozen layer (trainable=False) takes the running variance there, and kecam's the batch's.

    With a target, a model of Keras 3, `source` is a model of kecam's or the path of its .h5 file. Layers are found by
    name, weights alone are taken: groups and epsilon are the target's, and no file tells them.

    Raises ValueError if the layer is another, has no weights yet or runs on torch, where kecam takes means for
    variances, or if a weight on either side has no counterpart or another shape; then nothing has changed.
    """
    values = _theirs(source)
    if target is None:
        target = _like(source, **own)
    entries = _ours(target)
    _check(entries, values)
    for name, variable in entries.items():
        variable.assign(_value(values[name]).reshape(tuple(variable.shape)))
    return target


def to_kecam(source: Any, target: Any) -> Any:
    """kecam's layer or model `target`, given the weights of the NormActivation or model `source`; as in from_kecam."""
    entries, variables = _ours(source), _theirs(target)
    _check(entries, variables)
    for name, variable in entries.items():
        theirs = variables[name]
        theirs.assign(_value(variable).reshape(tuple(theirs.shape)))
    return target


def _like(source: Any, **own: Any) -> NormActivation:
    if type(source).__name__ != "EvoNormalization":
        raise ValueError(f"a {type(source).__name__} needs a target: from_kecam(source, keras_model)")
    grouped = source.num_groups > 0
    settings = {
        "groups": source.num_groups if grouped else 32,
        "fit_groups": True,
        "activate": bool(source.nonlinearity),
        "eps": source.epsilon,
        "momentum": 1 - source.momentum,
        "data_format": "channels_first" if source.is_channels_first else "channels_last",
        "name": source.name,
        "dtype": source.dtype_policy.name,
        "trainable": source.trainable,
    }
    layer = NormActivation(
        "evonorm-b0" if not grouped else "evonorm-s0" if source.nonlinearity else "evonorm-s0a", **{**settings, **own}
    )
    shape: list[int | None] = [None] * len(source.gamma.shape)
    shape[1 if layer.data_format == "channels_first" else -1] = int(np.prod(source.gamma.shape))
    layer.build(tuple(shape))
    return layer


def _ours(target: Any) -> dict[str, Any]:
    """The weights of a layer or model of Keras 3 by kecam's names, `layer/weight`; of one layer, `weight`."""
    return _unique(_of_layers(target))


def _theirs(source: Any) -> dict[str, Any]:
    """The weights of kecam's layer, model or file, but for a variance that nothing reads."""
    found = _unique(_of_file(Path(source)) if isinstance(source, str | Path) else _of_layers(source))
    return {name: value for name, value in found.items() if not _idle(name, found)}


def _idle(name: str, found: dict[str, Any]) -> bool:
    """Whether this is the running variance of an EvoNormalization that is an affine alone."""
    layer, _, weight = name.rpartition("moving_variance")
    return not weight and not {f"{layer}vv", f"{layer}moving_mean"} & found.keys()


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"two weights are called {name}")
        found[name] = value
    return found


def _of_layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The weights of a layer, or of the layers of a model and of models within it."""
    if hasattr(model, "layers"):
        for layer in model.layers:
            yield from _of_layers(layer, f"{layer.name}/")
        return
    if not prefix and not model.weights:
        raise ValueError(f"{model.name} has no weights yet: call it, or build it with the shape of its input")
    for one in model.weights:
        if not hasattr(one, "assign"):
            raise ValueError(
                f"{model.name} runs on torch, where kecam (1.4.3) takes means for variances; open it with "
                "KECAM_BACKEND=tensorflow"
            )
        plain = _plain(one.name)
        yield f"{prefix}{_THEIRS.get(plain, plain) if isinstance(model, NormActivation) else plain}", one


def _of_file(path: Path) -> Iterator[tuple[str, Any]]:
    """The weights of an .h5 file, of a whole model or of weights alone."""
    import h5py

    found: list[str] = []
    with h5py.File(path) as file:
        root = file.get("model_weights", file)
        root.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in found:  # layer/layer/weight:0, after the names of models around it
            yield f"{name.split('/')[-2]}/{_plain(name)}", root[name][()]


def _plain(name: str) -> str:
    """A weight's own name: Keras 2 has `stem_conv/depthwise_kernel:0` for Keras 3's `kernel`."""
    return name.rpartition("/")[2].partition(":")[0].replace("depthwise_kernel", "kernel")


def _check(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """That all have counterparts of their shapes; kecam's vectors have ones around the channels."""

    def shapes(side: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        vectors = {name for name in side if _plain(name) in _THEIRS.values()}
        return {n: (int(np.prod(one.shape)),) if n in vectors else tuple(one.shape) for n, one in side.items()}

    compare(shapes(ours), shapes(theirs), "kecam")


def _value(weight: Any) -> np.ndarray:
    value: np.ndarray = weight if isinstance(weight, np.ndarray) else weight.numpy()
    return value
