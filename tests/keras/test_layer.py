"""The Keras layer against the float64 reference: outputs, every gradient, running statistics; and as Keras's own."""

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
from tests.keras.backends import BACKEND, results

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


def check(layer: NormActivation, shape: tuple[int, ...], *, training: bool = True, tolerance: float = 1e-9) -> None:
    """shape: (N, C, *), turned to what the layer takes; in the layer's own dtype."""
    first = FIRST[layer.data_format]
    x, dy = (noise(*shape, seed=seed).astype(layer.dtype) for seed in (1, 2))
    turned = [t if first else np.ascontiguousarray(np.moveaxis(t, 1, -1)) for t in (x, dy)]
    scrambled(layer, turned[0].shape)
    exact = expected(layer, x, dy, training=training)
    found = results(layer, *turned, training=training)
    found |= {w.name: w.numpy() for w in layer.non_trainable_weights}
    assert found.keys() == exact.keys()
    for name, value in found.items():
        value = value if first or value.ndim == 1 else np.moveaxis(value, -1, 1)
        error = np.abs(value - exact[name]).max() / max(1, np.abs(exact[name]).max())
        assert error <= tolerance, f"{name}: {error:.3g}"


@ROWS
@pytest.mark.parametrize(
    ("data_format", "activate"),
    [("channels_last", True), ("channels_first", True), ("channels_last", False)],
    ids=["channels_last", "channels_first", "linear"],
)
def test_outputs_and_gradients_are_the_references(row: NormAct, data_format: str, activate: bool) -> None:
    layer = NormActivation(row.name, groups=3, activate=activate, data_format=data_format, dtype="float64")
    check(layer, SHAPE)


@pytest.mark.parametrize("row", [row for row in TABLE if row.running], ids=lambda row: row.name)
def test_outside_training_running_statistics_stand_in(row: NormAct) -> None:
    check(NormActivation(row.name, dtype="float64"), SHAPE, training=False)
    frozen = NormActivation(row.name, dtype="float64", trainable=False)
    x = noise(*SHAPE)
    scrambled(frozen, x.shape)
    held = [w.numpy() for w in frozen.weights]
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(frozen(x, training=mode)) for mode in (True, False)))
    for before, after in zip(held, frozen.weights, strict=True):
        np.testing.assert_array_equal(before, after.numpy())


@pytest.mark.parametrize("layer", ["evonorm-b0", "evonorm-s0", "bn-silu"])
@pytest.mark.parametrize("space", [(7,), (2, 1, 2)], ids=["1d", "3d"])
def test_one_to_three_dimensions(layer: str, space: tuple[int, ...]) -> None:
    check(NormActivation(layer, groups=2, dtype="float64", momentum=0.3), (3, 4, *space))


@pytest.mark.parametrize("row", [row for row in TABLE if row.variant_of is None], ids=lambda row: row.name)
def test_in_float32_as_exact_as_its_rounding(row: NormAct) -> None:
    check(NormActivation(row.name, groups=3), SHAPE, tolerance=4e-6)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("layer", ["evonorm-b0", "evonorm-s0"])
def test_mixed_precision_keeps_statistics_in_float32(layer: str, dtype: str) -> None:
    """Squares of 400 overflow float16; the result is the exact one, rounded once."""
    mixed = NormActivation(layer, groups=3, dtype=dtype)
    x = keras.ops.cast(noise(*SHAPE) * 400, mixed.compute_dtype)
    y = mixed(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == dtype.removeprefix("mixed_")
    assert {w.dtype for w in mixed.weights} == {"float32"}
    whole = NormActivation(layer, groups=3, dtype="float64")(keras.ops.cast(x, "float64"), training=True)
    ulp = 2.0**-11 if dtype == "mixed_float16" else 2.0**-8
    found, exact = (np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(t, "float64"))) for t in (y, whole))
    np.testing.assert_allclose(found, exact, rtol=1.02 * ulp, atol=1e-6)


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
    check(layer, SHAPE)
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
    with pytest.raises(ValueError, match=r"must give one value for each of x: its formula gives \(2, 1, 1, 4\)"):
        NormActivation("small", groups=2)(noise(2, 3, 3, 4))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_that_text_may_name_is_kerass_too(name: str) -> None:
    two = name in ("maximum", "minimum")
    text = f"{name}(x, 0.3)" if two else f"{name}(x * x + 0.1)" if name in ("log", "sqrt") else f"{name}(x)"
    x = noise(3, 4)
    found = parse(text, function)(keras.ops.convert_to_tensor(x), None, None, None)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found), parse(text)(torch.from_numpy(x), None, None, None), rtol=1e-7, atol=1e-7
    )


def test_an_empty_batch_leaves_no_trace() -> None:
    for name in ("evonorm-b0", "bn-relu"):
        layer = NormActivation(name)
        layer.build((None, 3, 3, 4))
        layer(np.zeros((0, 3, 3, 4), "float32"), training=True)
        assert all(np.isfinite(w.numpy()).all() for w in layer.weights)


def test_a_saved_model_comes_back(tmp_path) -> None:
    evonorm.add_layer("rms", "x * sigmoid(k * x) / rms_group * weight + bias", initial={"k": 1.0})
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(8, 3),
            NormActivation("rms", group_size=4),
            NormActivation("evonorm-b0", eps=1e-3, momentum=0.01, name="second"),
        ]
    )
    x = noise(4, 6, 6, 3).astype("float32")
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    table._ROWS.pop("rms")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(one(x)) for one in (model, again)))
    assert again.get_layer("second").get_config() == model.get_layer("second").get_config()


def test_it_trains_compiled_with_sizes_left_open() -> None:
    """Through fit: graph and jit where the backend has them; batch and space are unknown when the graph is made."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(8, 3),
            NormActivation("evonorm-b0"),
            NormActivation("bn-relu"),
            NormActivation("evonorm-s0", groups=2),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    before = [w.numpy() for w in model.weights]
    history = model.fit(noise(20, 6, 6, 3), noise(20, 1), batch_size=8, epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]
    same = [w.path for w, old in zip(model.weights, before, strict=True) if (w.numpy() == old).all()]
    assert not same


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has it: test_replicas")
def test_synchronized_is_tensorflows() -> None:
    with pytest.raises(ValueError, match=r"synchronized=True is of TensorFlow's tf\.distribute"):
        NormActivation(synchronized=True)


def test_the_wing_is_found_by_name() -> None:
    assert evonorm.keras.NormActivation is NormActivation
