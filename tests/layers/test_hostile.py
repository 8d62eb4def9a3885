"""Inputs that break public implementations: each fault seen in one is a test here."""

from __future__ import annotations

import copy

import pytest
import torch

from evonorm import NormActivation, norm_act
from evonorm.layers.row import NormAct
from evonorm.layers.statistics import Statistics
from evonorm.layers.table import TABLE
from tests.tensors import noise

ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
BATCHED = pytest.mark.parametrize("kind", ["evonorm-b0", "evonorm-b1", "evonorm-b2"])


@ROWS
@pytest.mark.parametrize("std", [400.0, 3000.0])
def test_float16_with_large_spread_neither_vanishes_nor_overflows(row: NormAct, std: float) -> None:
    """Squares of float16 overflow above 255: the statistics must not be computed in it."""
    x = (noise(2, 64, 8, 8) * std).half()
    y = NormActivation(64, row.name)(x)
    exact = NormActivation(64, row.name).double()(x.double())
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y.double(), exact, rtol=2e-3, atol=2e-3)


@ROWS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mean_far_from_zero_keeps_its_variance(row: NormAct, dtype: torch.dtype) -> None:
    if row.native and dtype == torch.bfloat16:
        pytest.skip("torch's own norms lose it in bfloat16; the rival is kept as users have it")
    x = (noise(4, 64, 16, 16) + 1e4).to(dtype)
    y = NormActivation(64, row.name)(x)
    exact = NormActivation(64, row.name).double()(x.double())
    torch.testing.assert_close(y.double(), exact, rtol=2e-2 if dtype == torch.bfloat16 else 1e-2, atol=2e-2)


@ROWS
@pytest.mark.parametrize(
    "x",
    [
        torch.full((2, 64, 4, 4), 3.0),
        torch.zeros(2, 64, 4, 4),
        noise(2, 64, 4, 4) * 1e-30,
        noise(2, 64, 4, 4) * 1e15,
        noise(2, 64, 1, 1),
        noise(1, 64, 2, 1),
    ],
    ids=["constant", "zero", "tiny", "huge", "1x1 map", "batch of 1"],
)
def test_hard_inputs_give_finite_outputs_and_gradients(row: NormAct, x: torch.Tensor) -> None:
    layer = NormActivation(64, row.name)
    x = x.clone().to(torch.get_default_device()).requires_grad_()
    layer(x).backward(noise(*x.shape))
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(value).all() for value in layer.state_dict().values())
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@BATCHED
def test_one_value_a_channel_trains(kind: str) -> None:
    """Unbiased variances give NaN, or divide by zero, at N * H * W = 1."""
    layer = NormActivation(8, kind)
    assert torch.isfinite(layer(noise(1, 8, 1, 1))).all()
    assert torch.isfinite(layer.running_var).all()


@ROWS
def test_empty_batch(row: NormAct) -> None:
    layer = NormActivation(64, row.name)
    x = torch.empty(0, 64, 4, 4, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.shape
    if row.native is None:  # torch's batch_norm does turn its running statistics NaN
        assert all(torch.isfinite(value).all() for value in layer.buffers())


@ROWS
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_inputs_stay_visible(row: NormAct, bad: float) -> None:
    """A NaN must not be clamped away: the loss has to see it. Other samples of S-layers are untouched."""
    x = noise(2, 64, 4, 4)
    x[0, 3, 1, 2] = bad
    y = NormActivation(64, row.name).train()(x)
    assert not torch.isfinite(y[0, 3]).all()
    if row.name.startswith(("evonorm-s", "gn", "frn", "none")):
        assert torch.isfinite(y[1]).all()


@ROWS
def test_views_slices_and_expanded_inputs(row: NormAct) -> None:
    base = noise(4, 128, 9, 9)
    views = [
        base[:, ::2, 1:8, 2:],
        base.transpose(2, 3)[:, :64],
        base[:1, :64].expand(4, 64, 9, 9),
        base[:, :64].to(memory_format=torch.channels_last)[:, :, ::3],
    ]
    for view in views:
        torch.testing.assert_close(NormActivation(64, row.name)(view), NormActivation(64, row.name)(view.contiguous()))


@pytest.mark.parametrize("name", ["group_mean", "group_std", "group_rms", "instance_std", "instance_rms"])
def test_statistics_are_not_expanded_over_space(name: str) -> None:
    """A statistic as large as the input costs the input's memory again."""
    statistics = Statistics(noise(2, 64, 8, 8), eps=1e-5, groups=4)
    assert getattr(statistics, name)().shape == (2, 64, 1, 1)
    assert statistics.batch_std().shape == statistics.batch_mean().shape == (1, 64, 1, 1)


@ROWS
def test_input_is_left_as_it_was(row: NormAct) -> None:
    x = noise(2, 64, 4, 4)
    before = x.clone()
    NormActivation(64, row.name)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", ["evonorm-b0", "evonorm-b1", "evonorm-b2", "bn-relu"])
def test_no_gradient_flows_into_running_statistics(kind: str) -> None:
    """Where they are not detached the graph grows with every step and deepcopy fails."""
    layer = NormActivation(8, kind)
    for _ in range(3):
        layer(noise(2, 8, 4, 4).requires_grad_()).sum().backward()
    for buffer in layer.buffers():
        assert buffer.grad_fn is None
        assert not buffer.requires_grad
    copy.deepcopy(layer)


@pytest.mark.parametrize("kind", ["evonorm-s0", "evonorm-s1", "evonorm-s2", "gn-relu", "gn-silu"])
@pytest.mark.parametrize("groups", [32, 20, 5])
def test_groups_that_do_not_divide(kind: str, groups: int) -> None:
    with pytest.raises(
        ValueError, match=rf"groups must divide channels: got channels=48, groups={groups}; use groups="
    ):
        NormActivation(48, kind, groups=groups)
    with pytest.raises(ValueError, match="groups must divide channels"):
        norm_act(noise(1, 48, 2, 2), kind, v=torch.ones(48) if kind == "evonorm-s0" else None, groups=groups)


def test_fitting_groups_takes_the_largest_divisor() -> None:
    """32 groups on the report's widths; a search that halves falls to 16 groups at 48 and to 2 at 50."""
    fitted = {c: NormActivation(c, fit_groups=True).groups for c in (32, 48, 50, 64, 80, 96, 112, 160, 176, 7)}
    assert fitted == {32: 32, 48: 24, 50: 25, 64: 32, 80: 20, 96: 32, 112: 28, 160: 32, 176: 22, 7: 7}


def test_group_size() -> None:
    assert NormActivation(48, group_size=16).groups == 3
    assert NormActivation(48, group_size=20, fit_groups=True).groups == 3
    with pytest.raises(
        ValueError, match=r"group_size must divide channels: got channels=48, group_size=20; use group_size=16"
    ):
        NormActivation(48, group_size=20)
    with pytest.raises(ValueError, match="groups must be at least 1"):
        NormActivation(48, groups=0)


def test_misspelt_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="group"):
        NormActivation(32, group=8)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        norm_act(noise(1, 32, 2, 2), "evonorm-s1", moment=0.1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NormActivation(8, "evonorm-s7"), "no layer is called 'evonorm-s7'; did you mean 'evonorm-s"),
        (lambda: NormActivation(0), "channels must be at least 1"),
        (lambda: NormActivation(8, "bn-relu")(noise(2, 6, 3, 3)), "this layer has 8 channels: got x of shape"),
        (lambda: NormActivation(8, "bn-relu")(noise(2, 8)), "one to three spatial dimensions"),
        (lambda: norm_act(torch.ones(1, 8, 2, 2, dtype=torch.int32), "none"), "x must be one of"),
        (lambda: norm_act(noise(1, 8, 2, 2), "evonorm-s0", groups=4), "evonorm-s0 needs v: pass v="),
        (lambda: norm_act(noise(1, 8, 2, 2), "evonorm-b1"), "needs running_var when not training"),
        (
            lambda: norm_act(noise(1, 8, 2, 2), "evonorm-s1", v=torch.ones(8)),
            "evonorm-s1 has no v; it has bias, weight",
        ),
        (lambda: norm_act(noise(1, 8, 2, 2), "bn-relu", torch.ones(4)), "weight must have one value a channel"),
    ],
)
def test_errors_name_what_is_wrong(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
