"""The Keras layer against the float64 reference: outputs, every gradient, running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import keras
import numpy as np
import pytest
import torch

import evonorm
import evonorm.keras
from evonorm.keras import NormActivation
from evonorm.keras.statistics import function
from evonorm.layers import reference, table
from evonorm.layers.formula import FUNCTIONS, parse
from evonorm.layers.table import TABLE, NormAct, Setting
from tests.keras.backends import BACKEND, compiled, results

ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
FIRST = {"channels_first": True, "channels_last": False}
# One shape, whatever stands where: JAX compiles each operation for each shape anew.
SHAPE = (2, 6, 6, 6)


@pytest.fixture(autouse=True)
def rows_of_this_test() -> Iterator[None]:
    with mock.patch.dict(table._ROWS):
        yield


def noise(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.4, 1.7, shape)


def scrambled(layer: NormActivation, shape: tuple[int, ...]) -> NormActivation:
    """The layer, built, with weights far from their initial values."""
    if not layer.built:
        layer.build(shape)
    for seed, weight in enumerate(layer.weights):
        value = noise(*weight.shape, seed=seed + 10)
        weight.assign(abs(value) + 0.2 if weight.name == "running_var" else value)
    return layer


def expected(layer: NormActivation, x: np.ndarray, dy: np.ndarray, *, training: bool = True) -> dict[str, np.ndarray]:
    """What results gives, and the running statistics, by the reference in float64; x, dy: (N, C, *)."""
    given = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    p = {w.name: torch.from_numpy(w.numpy().astype(np.float64)) for w in layer.weights}
    trained = {w.name: p[w.name].requires_grad_() for w in layer.trainable_weights}
    setting = Setting(layer.groups_in_force, layer.eps, layer.momentum, training, layer.activate)
    y = reference.evaluate(table.get(layer.layer), given, p, setting)
    y.backward(torch.from_numpy(dy.astype(np.float64)))
    found = {"y": y.detach(), "dx": given.grad, **{f"d{name}": value.grad for name, value in trained.items()}}
    found |= {name: p[name] for name in p.keys() - trained.keys()}
    return {name: value.numpy() for name, value in found.items()}


def check(*layers: NormActivation, shape: tuple[int, ...] = SHAPE, training: bool = True) -> None:
    """shape: (N, C, *), turned to what each layer takes; in its own dtype, and as exact as that is."""
    cases, exact = [], []
    for layer in layers:
        x, dy = (noise(*shape, seed=seed).astype(layer.dtype) for seed in (1, 2))
        turned = [t if FIRST[layer.data_format] else np.ascontiguousarray(np.moveaxis(t, 1, -1)) for t in (x, dy)]
        scrambled(layer, turned[0].shape)
        cases.append((layer, *turned))
        exact.append(expected(layer, x, dy, training=training))
    for layer, found, wanted in zip(layers, results(*cases, training=training), exact, strict=True):
        found |= {w.name: w.numpy() for w in layer.non_trainable_weights}
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            value = value if FIRST[layer.data_format] or value.ndim == 1 else np.moveaxis(value, -1, 1)
            error = np.abs(value - wanted[name]).max() / max(1, np.abs(wanted[name]).max())
            told = f"{layer.layer}, {layer.dtype}, {layer.data_format}, activate={layer.activate}: {name}: {error:.3g}"
            assert error <= {"float64": 1e-9, "float32": 4e-6}[layer.dtype], told


@ROWS
def test_outputs_and_gradients_are_the_references(row: NormAct) -> None:
    """In float64, channels last and first, activated and not; in float32 as exact as its rounding."""
    check(
        NormActivation(row.name, groups=3, dtype="float64"),
        NormActivation(row.name, groups=3, dtype="float64", data_format="channels_first"),
        NormActivation(row.name, groups=3, dtype="float64", activate=False),
        NormActivation(row.name, groups=3),
    )


@pytest.mark.parametrize("row", [row for row in TABLE if row.running], ids=lambda row: row.name)
def test_outside_training_running_statistics_stand_in(row: NormAct) -> None:
    check(NormActivation(row.name, dtype="float64"), training=False)
    frozen = NormActivation(row.name, dtype="float64", trainable=False)
    x = noise(*SHAPE)
    scrambled(frozen, x.shape)
    held = [w.numpy() for w in frozen.weights]
    (training,), (evaluating,) = (results((frozen, x, x), training=mode) for mode in (True, False))
    for name, value in training.items():
        np.testing.assert_array_equal(value, evaluating[name])
    for before, after in zip(held, frozen.weights, strict=True):
        np.testing.assert_array_equal(before, after.numpy())


@pytest.mark.parametrize("space", [(7,), (2, 1, 2)], ids=["1d", "3d"])
def test_one_to_three_dimensions(space: tuple[int, ...]) -> None:
    names = ("evonorm-b0", "evonorm-s0", "bn-silu")
    layers = [NormActivation(name, groups=2, dtype="float64", momentum=0.3) for name in names]
    check(*layers, shape=(3, 4, *space))


@pytest.mark.parametrize("layer", ["evonorm-b0", "evonorm-s0"])
def test_mixed_precision_keeps_statistics_in_float32(layer: str) -> None:
    """Squares of 400 overflow float16; the result is the exact one, rounded once."""
    rounding = {"mixed_float16": 2.0**-11, "mixed_bfloat16": 2.0**-8}
    whole = NormActivation(layer, groups=3, dtype="float64")
    mixed = [NormActivation(layer, groups=3, dtype=dtype) for dtype in rounding]
    for one in (whole, *mixed):
        one.build(SHAPE)

    def both(x):
        rounded = [keras.ops.cast(x, one.compute_dtype) for one in mixed]
        found = [one(each, training=True) for one, each in zip(mixed, rounded, strict=True)]
        exact = [whole(keras.ops.cast(each, "float64"), training=True) for each in rounded]
        kinds.extend(keras.backend.standardize_dtype(y.dtype) for y in found)
        return [keras.ops.cast(y, "float64") for y in found], exact

    kinds: list[str] = []
    found, exact = compiled(both)(keras.ops.convert_to_tensor(noise(*SHAPE) * 400))
    assert kinds == ["float16", "bfloat16"]
    assert {w.dtype for one in mixed for w in one.weights} == {"float32"}
    for y, wanted, ulp in zip(found, exact, rounding.values(), strict=True):
        y, wanted = (keras.ops.convert_to_numpy(t) for t in (y, wanted))
        np.testing.assert_allclose(y, wanted, rtol=1.02 * ulp, atol=1e-6)


def test_groups_fit_or_are_refused() -> None:
    with pytest.raises(ValueError, match="groups must divide channels: got channels=48, groups=32; use groups=24"):
        NormActivation("evonorm-s0").build((None, 4, 4, 48))
    for wanted, groups in (({"fit_groups": True}, 24), ({"group_size": 16}, 3)):
        layer = NormActivation("evonorm-s0", **wanted)
        layer.build((None, 4, 4, 48))
        assert layer.groups_in_force == groups
    NormActivation("bn-relu").build((None, 4, 4, 48))


@pytest.mark.parametrize(
    ("arguments", "shape", "said"),
    [
        ({"layer": "evonorm"}, None, "no layer is called 'evonorm'; did you mean"),
        ({"momentum": 2}, None, "momentum must be between 0 and 1: got momentum=2"),
        ({"data_format": "NCHW"}, None, "data_format must be one of channels_last, channels_first: got 'NCHW'"),
        ({}, (None, 32), "one to three spatial dimensions: got x of shape (None, 32)"),
        ({}, (None, 4, 4, None), "the number of channels must be known"),
    ],
)
def test_what_is_refused(arguments, shape, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        NormActivation(**arguments).build(shape)
    assert said in str(caught.value)


def test_added_layers_are_their_text() -> None:
    text = "max(x / rms_group * weight + bias, slope * x) + sigmoid(x) * rest**2"
    evonorm.add_layer("own", text, initial={"slope": 0.25}, eps=1e-3)
    layer = NormActivation("own", groups=2, dtype="float64")
    check(layer)
    config = layer.get_config()
    table._ROWS.pop("own")
    again = NormActivation.from_config(config)
    assert again.get_config() == config
    assert table.get("own").parameters == {"slope": 0.25, "rest": 0.0}
    evonorm.add_layer("spoken", lambda x, s, p, affine: torch.where(x > 0, x, affine(x)))
    with pytest.raises(ValueError, match="spoken cannot be evaluated by Keras"):
        NormActivation("spoken")
    evonorm.add_layer("named", "x * weight + bias + path")
    with pytest.raises(ValueError, match="a parameter cannot be called 'path', which every Keras layer has; rename it"):
        NormActivation("named").build((None, 4, 4, 2))
    evonorm.add_layer("small", "std_group * weight + bias")
    small = NormActivation("small", groups=2)
    small.build((2, 3, 3, 4))
    with pytest.raises(ValueError, match=r"must give one value for each of x: its formula gives \(2, 1, 1, 4\)"):
        compiled(small)(noise(2, 3, 3, 4))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_that_text_may_name_is_kerass_too(name: str) -> None:
    two = name in ("maximum", "minimum")
    text = f"{name}(x, 0.3)" if two else f"{name}(x * x + 0.1)" if name in ("log", "sqrt") else f"{name}(x)"
    x = noise(3, 4)
    evaluated = compiled(lambda x: parse(text, function)(x, None, None, None))
    found = evaluated(keras.ops.convert_to_tensor(x))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found), parse(text)(torch.from_numpy(x), None, None, None), rtol=1e-7, atol=1e-7
    )


def test_an_empty_batch_leaves_no_trace() -> None:
    layers = [NormActivation(name) for name in ("evonorm-b0", "bn-relu")]
    nothing = np.zeros((0, 3, 3, 4), "float32")
    for layer in layers:
        layer.build(nothing.shape)
    results(*((layer, nothing, nothing) for layer in layers))
    for layer in layers:
        assert all(np.isfinite(w.numpy()).all() for w in layer.weights)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has it: test_replicas")
def test_synchronized_is_tensorflows() -> None:
    with pytest.raises(ValueError, match=r"synchronized=True is of TensorFlow's tf\.distribute"):
        NormActivation(synchronized=True)


def test_the_wing_is_found_by_name() -> None:
    assert evonorm.keras.NormActivation is NormActivation
