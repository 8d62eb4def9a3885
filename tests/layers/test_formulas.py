"""Every row of the table against the float64 NumPy formulas, over shapes, dtypes and memory formats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evonorm import NormActivation, norm_act
from evonorm.layers import reference
from evonorm.layers.row import NormAct
from evonorm.layers.table import TABLE, Setting, get
from tests.layers.oracle import oracle
from tests.tensors import noise

ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
GROUPS = {63: 7, 8: 4, 6: 3, 1: 1, 5: 5, 64: 32, 12: 1}
SHAPES = [
    (2, 63, 7, 5),  # nothing divides a vector
    (1, 8, 1, 1),  # one value an instance
    (3, 6, 1, 9),
    (1, 1, 4, 4),
    (2, 5, 3, 3),  # a group a channel
    (4, 64, 8, 8),
    (2, 12, 6, 6),  # one group of all channels
]


def parameters(row: NormAct, channels: int, seed: int = 0, *, activate: bool = True) -> dict[str, torch.Tensor]:
    """Random values for every parameter of the row, far from their initial ones."""
    names = [*(("weight", "bias") if row.affine else ()), *(row.parameters if activate else ())]
    return {name: noise(channels, seed=100 * seed + i, dtype=torch.float64) for i, name in enumerate(names)}


def inputs(shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    return noise(*shape, seed=seed, dtype=torch.float64) * 1.7 + 0.4


def evaluated(row: NormAct, x: torch.Tensor, p: dict[str, torch.Tensor], groups: int, activate: bool = True):
    """The table's own formula, also for the rows that torch serves natively."""
    return reference.evaluate(row, x, dict(p), Setting(groups=groups, eps=row.eps, activate=activate))


@ROWS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activate", [True, False], ids=["activated", "linear"])
def test_formula_in_float64(row: NormAct, shape: tuple[int, ...], activate: bool) -> None:
    channels = shape[1]
    x, p = inputs(shape), parameters(row, channels, activate=activate)
    groups = GROUPS[channels] if row.grouped else 1
    values = {k: t.numpy(force=True) for k, t in p.items()}
    expected = oracle(row.name, x.numpy(force=True), groups=groups, eps=row.eps, activate=activate, **values)
    np.testing.assert_allclose(evaluated(row, x, p, groups, activate).numpy(force=True), expected, rtol=1e-9, atol=1e-9)
    if row.native == "batch_norm" and shape[0] * shape[2] * shape[3] == 1:
        return  # torch's batch_norm refuses one value a channel: test_rivals_are_torchs
    public = norm_act(x, row.name, **p, training=True, groups=groups, activate=activate)
    np.testing.assert_allclose(public.numpy(force=True), expected, rtol=1e-9, atol=1e-9)


@ROWS
@given(
    batch=st.integers(1, 4),
    group_count=st.integers(1, 5),
    group_size=st.integers(1, 5),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=20, deadline=None)
def test_formula_over_shapes(row, batch, group_count, group_size, height, width, seed) -> None:
    shape = (batch, group_count * group_size, height, width)
    x, p = inputs(shape, seed), parameters(row, shape[1], seed)
    expected = oracle(
        row.name, x.numpy(force=True), groups=group_count, eps=row.eps, **{k: t.numpy(force=True) for k, t in p.items()}
    )
    y = evaluated(row, x, p, group_count if row.grouped else 1)
    np.testing.assert_allclose(y.numpy(force=True), expected, rtol=1e-8, atol=1e-8)


@ROWS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_dtypes_and_memory_formats(row: NormAct, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """The result is the exact one of the rounded input, rounded once more: half an ulp, and the affine's own."""
    x = inputs((3, 64, 6, 5)).to(dtype).to(memory_format=memory_format)
    p = {name: value.to(dtype) for name, value in parameters(row, 64).items()}
    y = norm_act(x, row.name, **p, training=True)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=memory_format)
    values = {k: t.double().numpy(force=True) for k, t in p.items()}
    exact = oracle(row.name, x.double().numpy(force=True), groups=32, eps=row.eps, **values)
    ulp = torch.finfo(dtype).eps
    # Rounding once is ulp / 2. torch's own norms round before the activation too.
    tolerance = {torch.float32: 16 * ulp}.get(dtype, 2.5 * ulp if row.native else 0.51 * ulp)
    np.testing.assert_allclose(
        y.double().numpy(force=True), exact, rtol=tolerance, atol=tolerance * 4 if row.native else 1e-6
    )


@ROWS
@pytest.mark.parametrize("space", [(9,), (3, 4), (2, 3, 2)], ids=["1d", "2d", "3d"])
def test_one_to_three_dimensions_are_the_same_layer(row: NormAct, space: tuple[int, ...]) -> None:
    x, p = inputs((2, 8, *space)), parameters(row, 8)
    y = norm_act(x, row.name, **p, training=True, groups=4)
    flat = norm_act(x.flatten(2).unsqueeze(-1), row.name, **p, training=True, groups=4)
    torch.testing.assert_close(y, flat.reshape(x.shape))


@ROWS
def test_gradients_against_finite_differences(row: NormAct) -> None:
    x = inputs((2, 6, 3, 2)).requires_grad_()
    p = {name: value.requires_grad_() for name, value in parameters(row, 6).items()}

    def y(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return evaluated(row, x, dict(zip(p, values, strict=True)), 3 if row.grouped else 1)

    assert torch.autograd.gradcheck(y, (x, *p.values()))
    assert torch.autograd.gradgradcheck(y, (x, *p.values()))


@pytest.mark.parametrize("row", [row for row in TABLE if row.native], ids=lambda row: row.name)
def test_native_rows_are_their_formula(row: NormAct) -> None:
    """torch's batch_norm and group_norm agree with the table's formula, outputs and every gradient."""
    x = inputs((4, 6, 5, 3))
    p = parameters(row, 6)
    cotangent = inputs(x.shape, seed=9)

    def gradients(function):
        leaves = [t.clone().requires_grad_() for t in (x, *p.values())]
        y = function(leaves[0], dict(zip(p, leaves[1:], strict=True)))
        y.backward(cotangent)
        return [y.detach(), *(leaf.grad for leaf in leaves)]

    groups = 3 if row.grouped else 1
    ours = gradients(lambda x, p: evaluated(row, x, p, groups))
    public = gradients(lambda x, p: norm_act(x, row.name, **p, training=True, groups=3))
    for a, b in zip(ours, public, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["evonorm-b0", "evonorm-b1", "evonorm-b2", "bn-relu"])
def test_eval_uses_running_statistics(kind: str) -> None:
    row = get(kind)
    x, p = inputs((3, 6, 4, 4)), parameters(row, 6)
    running = {"running_var": inputs((6,), 3).abs() + 0.1}
    fixed = {"var": running["running_var"].numpy(force=True)}
    if "running_mean" in row.running:
        running["running_mean"] = inputs((6,), 4)
        fixed["mean"] = running["running_mean"].numpy(force=True)
    y = norm_act(x, kind, **p, **running, training=False)
    expected = oracle(kind, x.numpy(force=True), **{k: t.numpy(force=True) for k, t in p.items()}, **fixed)
    np.testing.assert_allclose(y.numpy(force=True), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["evonorm-b0", "evonorm-b1", "evonorm-b2"])
def test_running_variance_is_biased_and_blended(kind: str) -> None:
    layer = NormActivation(6, kind, momentum=0.3, dtype=torch.float64)
    x = inputs((3, 6, 4, 4))
    layer(x)
    expected = 0.7 * np.ones(6) + 0.3 * x.numpy(force=True).var((0, 2, 3))
    np.testing.assert_allclose(layer.running_var.numpy(force=True), expected, rtol=1e-12)
    layer.eval()
    layer(x)
    np.testing.assert_allclose(layer.running_var.numpy(force=True), expected, rtol=1e-12)


@ROWS
def test_nan_filled_memory_reaches_no_output(row: NormAct, nan_filled_memory: None) -> None:
    layer = NormActivation(64, row.name)
    x = inputs((2, 64, 5, 5)).float().requires_grad_()
    layer(x).square().sum().backward()
    assert x.grad is not None
    values = [x.grad, *(p.grad for p in layer.parameters()), *layer.buffers()]
    assert all(torch.isfinite(value).all() for value in values)
