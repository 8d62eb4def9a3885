"""Triton's kernels where weight and bias are each sample's own, (N, C): by the yardstick of all kernels."""

from __future__ import annotations

import functools

import pytest
import torch

from evonorm import NormActivation, norm_act
from evonorm.layers.table import get
from tests.layers.on_triton import (
    DEVICE,
    EACH_WAY,
    KINDS,
    MARKS,
    ROWS,
    SERVED,
    WAYS,
    force,
    hold,
    on_device,
    two_phases_are_backward,
)
from tests.layers.yardstick import case, noise, results

pytestmark = MARKS
TWO = pytest.mark.parametrize("row", KINDS[:2], ids=lambda row: row.name)
SHAPES = {"held": (3, 6, 3, 2), "read twice": (2, 6, 5, 3), "split": (2, 6, 7, 5)}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def limits(monkeypatch):
    return functools.partial(force, monkeypatch)


def conditional(row, shape, dtype=torch.float32, channels_last=True, own=("weight", "bias")):
    row, x, dy, p = case(row, shape, dtype, channels_last)
    return row, x, dy, p | {name: noise(shape[:2], seed).float() for seed, name in enumerate(own, 30)}


@ROWS
@EACH_WAY
def test_against_float64(row, way, limits, nan_filled_memory) -> None:
    """In y and every gradient; each row in every dtype, and in both memory formats."""
    limits(way)
    turn = SERVED.index(row) + list(WAYS).index(way)
    given = conditional(row, SHAPES[way], DTYPES[turn % 3], turn % 2 == 0)
    hold(*given)
    if row.running and way == "held":
        hold(*given, running={name: noise((6,), 7).float().abs() + 0.3 for name in row.running})


@TWO
@pytest.mark.parametrize("own", ["weight", "bias"])
def test_one_of_both_of_each_sample(row, own, limits, nan_filled_memory) -> None:
    limits("split" if own == "weight" else "held")
    *given, p = conditional(row, (2, 4, 7, 5), own=(own,))
    hold(*given, p)
    hold(*given, {name: value for name, value in p.items() if name in (own, *row.parameters)})


@TWO
def test_the_same_bits_every_time(row, limits, nan_filled_memory) -> None:
    limits("split")
    row, x, dy, p = conditional(row, SHAPES["split"])

    def found() -> dict[str, torch.Tensor]:
        return results(
            lambda x, p: norm_act(x, row.name, **p, training=True, groups=2, backend="triton"),
            *(x.to(DEVICE), on_device(p), dy.to(DEVICE)),
        )

    first, again = found(), found()
    assert first["dweight"].shape == first["dbias"].shape == (2, 6)
    for name, value in first.items():
        assert torch.equal(value, again[name]), name


@TWO
def test_second_derivatives_are_those_of_the_reference(row) -> None:
    found = []
    for backend in ("triton", "reference"):
        row, x, dy, p = conditional(row, (2, 4, 3, 3))
        leaves = [t.to(DEVICE).requires_grad_() for t in (x, *p.values())]
        given = dict(zip(p, leaves[1:], strict=True))
        y = norm_act(leaves[0], row.name, **given, training=True, groups=2, backend=backend)
        first = torch.autograd.grad(y, leaves, dy.to(DEVICE), create_graph=True)
        squares = sum(g.square().sum() for g in first)
        found.append(torch.autograd.grad(squares, leaves, allow_unused=True, materialize_grads=True))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["evonorm-b0", "bn-relu"])
def test_the_two_phases_of_replicas_are_backward(name) -> None:
    """With one replica, whose totals are the sum: each sample's share of it is times its own weight."""
    two_phases_are_backward(name, *conditional(get(name), (2, 6, 5, 3))[1:])


def test_a_conditional_layer_trains_as_by_the_reference() -> None:
    found = []
    for backend in ("triton", "reference"):
        layer = NormActivation(6, "bn-silu", conditional=3, backend=backend, device=DEVICE)
        with torch.no_grad():
            for seed, parameter in enumerate(layer.parameters()):
                parameter.copy_(noise(tuple(parameter.shape), seed))
        x, condition = (noise(shape, 9).float().to(DEVICE) for shape in ((2, 6, 3, 3), (2, 3)))
        y = layer(x, condition)
        y.backward(noise((2, 6, 3, 3), 8).float().to(DEVICE))
        found.append([y.detach(), *(p.grad for p in layer.parameters()), *layer.buffers()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
