"""NormActivation as users meet it: in models, checkpoints, compilers, autocast."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from evonorm import NormActivation, names, norm_act
from evonorm.layers.row import NormAct
from evonorm.layers.table import TABLE, distinct, get
from tests.tensors import noise

ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


def scrambled(layer: nn.Module) -> nn.Module:
    """The layer with parameters and buffers far from their initial values."""
    for index, value in enumerate(layer.state_dict().values()):
        value.copy_(noise(*value.shape, seed=index).abs() + 0.2)
    return layer


def test_the_table_has_the_promised_rows() -> None:
    assert names() == (
        *(f"evonorm-{kind}" for kind in ("b0", "b1", "b2", "s0", "s1", "s2", "s0a", "s1a", "s2a")),
        *("frn-tlu", "bn-relu", "bn-silu", "gn-relu", "gn-silu", "none"),
    )


def test_variants_are_left_out_where_every_layer_is_trained() -> None:
    """A row with another's formula would train the same thing twice."""
    assert set(names()) - set(distinct()) == {"evonorm-s0a", "evonorm-s1a", "evonorm-s2a"}
    for row in TABLE:
        if row.variant_of is not None:
            assert row.formula is get(row.variant_of).formula
            assert row.linear is not get(row.variant_of).linear


@ROWS
def test_state_and_its_initial_values(row: NormAct) -> None:
    expected = {"weight": 1.0, "bias": 0.0, **row.parameters} if row.affine else {}
    expected |= {name: 1.0 if name == "running_var" else 0.0 for name in row.running}
    state = NormActivation(64, row.name).state_dict()
    assert {name: (value.shape, value.unique().item()) for name, value in state.items()} == {
        name: ((64,), value) for name, value in expected.items()
    }


@ROWS
@pytest.mark.parametrize("activate", [True, False])
def test_checkpoints_and_copies(row: NormAct, activate: bool) -> None:
    layer = scrambled(nn.Sequential(nn.Conv2d(3, 64, 1), NormActivation(64, row.name, activate=activate))).eval()
    x = noise(2, 3, 4, 4)
    again = nn.Sequential(nn.Conv2d(3, 64, 1), NormActivation(64, row.name, activate=activate)).eval()
    again.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), again(x))
    assert torch.equal(layer(x), copy.deepcopy(layer)(x))


def test_a_batch_norm_checkpoint_loads() -> None:
    batch_norm = scrambled(nn.BatchNorm2d(8)).eval()
    layer = NormActivation(8, "bn-relu", backend="reference").eval()
    layer.load_state_dict(batch_norm.state_dict())
    x = noise(2, 8, 3, 3)
    assert torch.equal(layer(x), batch_norm(x).relu())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_rivals_are_torchs(activation: str, training: bool) -> None:
    """The reference of a rival is the one users have, to the bit, running statistics included."""
    activate = getattr(torch.nn.functional, activation)
    x = noise(4, 64, 5, 5)
    for theirs, ours in [
        (nn.BatchNorm2d(64), NormActivation(64, f"bn-{activation}", backend="reference")),
        (nn.GroupNorm(32, 64), NormActivation(64, f"gn-{activation}", backend="reference")),
    ]:
        assert torch.equal(activate(theirs.train(training)(x)), ours.train(training)(x))
        for name, buffer in ours.named_buffers():
            assert torch.equal(buffer, getattr(theirs, name))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        NormActivation(64, f"bn-{activation}")(noise(1, 64, 1, 1))


@pytest.mark.parametrize("kind", ["b0", "b1", "b2", "s0", "s1", "s2", "frn"])
@pytest.mark.parametrize("training", [True, False])
def test_against_timm(kind: str, training: bool) -> None:
    """timm's layers give the same outputs and gradients; their running variance is the unbiased one."""
    layers = pytest.importorskip("timm.layers")
    count = 4 * 6 * 5
    if kind == "frn":
        theirs, ours = layers.FilterResponseNormTlu2d(64), NormActivation(64, "frn-tlu")
    else:
        theirs = getattr(layers, f"EvoNorm2d{kind.upper()}")(64)
        ours = NormActivation(64, f"evonorm-{kind}", eps=1e-3 if kind == "b0" else 1e-5)
    scrambled(theirs).train(training)
    ours.train(training).load_state_dict(theirs.state_dict())
    grads, outputs = [], []
    for layer in (theirs, ours):
        x = noise(4, 64, 6, 5).requires_grad_()
        y = layer(x)
        y.backward(noise(4, 64, 6, 5, seed=8))
        outputs.append(y.detach())
        grads.append({"x": x.grad, **{name: p.grad for name, p in layer.named_parameters()}})
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)
    if training and kind.startswith("b"):
        before = noise(64, seed=list(theirs.state_dict()).index("running_var")).abs() + 0.2
        batch_biased = (ours.running_var - 0.9 * before) / 0.1
        batch_unbiased = (theirs.running_var - 0.9 * before) / 0.1
        torch.testing.assert_close(batch_biased * count / (count - 1), batch_unbiased, rtol=1e-3, atol=1e-4)


@ROWS
@pytest.mark.parametrize("training", [True, False])
def test_compiled_whole(row: NormAct, training: bool) -> None:
    """No graph break; the same outputs, gradients and running statistics."""
    torch.compiler.reset()  # or the cases before this one count as recompilations of it
    eager = scrambled(NormActivation(64, row.name)).train(training)
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend="aot_eager")
    results = []
    for layer in (eager, compiled):
        x = noise(2, 64, 4, 4).requires_grad_()
        y = layer(x)
        y.backward(noise(2, 64, 4, 4, seed=5))
        results.append({"y": y.detach(), "dx": x.grad, **{k.split(".")[-1]: v for k, v in layer.state_dict().items()}})
    torch.testing.assert_close(results[0], results[1])


@ROWS
def test_exported(row: NormAct) -> None:
    """torch.export, which needs no torch.jit, with a batch size that stays open."""
    torch.compiler.reset()  # or an older torch counts the cases before this one as recompilations
    layer = scrambled(NormActivation(64, row.name)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # raised by torch inside its own exporter
        exported = torch.export.export(layer, (noise(4, 64, 4, 4),), dynamic_shapes=({0: batch},))
    x = noise(7, 64, 4, 4)
    torch.testing.assert_close(exported.module()(x), layer(x))


@ROWS
def test_autocast_computes_statistics_in_float32(row: NormAct) -> None:
    layer = NormActivation(64, row.name)
    x = (noise(2, 64, 8, 8) + 100).bfloat16()
    with torch.autocast(x.device.type, torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), NormActivation(64, row.name)(x.float()), rtol=2e-2, atol=2e-2)


@ROWS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_module_in_another_dtype(row: NormAct, dtype: torch.dtype) -> None:
    layer = NormActivation(64, row.name, dtype=dtype)
    assert {value.dtype for value in layer.state_dict().values()} <= {dtype}
    assert layer(noise(2, 64, 4, 4).to(dtype)).dtype == dtype


@pytest.mark.parametrize("row", [row for row in TABLE if row.affine and row.native is None], ids=lambda r: r.name)
def test_module_is_the_function(row: NormAct) -> None:
    layer = scrambled(NormActivation(64, row.name, groups=8))
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    x = noise(2, 64, 4, 4)
    assert torch.equal(layer(x), norm_act(x, row.name, **state, training=True, groups=8))


def test_repr_tells_layer_channels_and_groups_in_force() -> None:
    assert repr(NormActivation(48, fit_groups=True)) == "NormActivation(48, layer='evonorm-s0', groups=24, eps=1e-05)"
    assert repr(NormActivation(8, "evonorm-b0", activate=False)) == (
        "NormActivation(8, layer='evonorm-b0', eps=1e-05, activate=False)"
    )
    assert "momentum=0.1" in repr(NormActivation(8, "bn-relu"))


def test_other_float_types_of_device() -> None:
    layer = NormActivation(64, device="meta")
    assert layer(torch.empty(2, 64, 4, 4, device="meta")).shape == (2, 64, 4, 4)
