"""x of one dtype, parameters of another: every layer takes every mixture, and calls do not disturb each other."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from evonorm import NormActivation
from evonorm.layers import reference
from evonorm.layers.row import NormAct
from evonorm.layers.table import TABLE, Setting
from tests.tensors import noise

EXACT = torch.float64
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])]
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
BACKENDS = pytest.mark.parametrize("backend", ["auto", "reference"])
pytestmark = pytest.mark.own_device
ON = pytest.mark.parametrize("device", DEVICES)


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def layer_of(row: NormAct, backend: str, dtype: torch.dtype, device: str = "cpu") -> NormActivation:
    layer = NormActivation(8, row.name, groups=4, backend=backend, dtype=dtype, device=device)
    with torch.no_grad():
        for seed, value in enumerate(layer.state_dict().values()):
            value.copy_(noise(8, seed=seed, dtype=EXACT).abs() + 0.5)
    return layer


def exact(row: NormAct, layer: NormActivation, x: torch.Tensor, dy: torch.Tensor, training: bool) -> dict:
    """The row's formula in float64, of the values as they were rounded."""
    leaves = {name: p.detach().double().requires_grad_() for name, p in layer.named_parameters()}
    running = {name: b.double().clone() for name, b in layer.named_buffers()}
    x = x.detach().double().requires_grad_()
    setting = Setting(groups=layer.groups, eps=layer.eps, training=training)
    y = reference.evaluate(row, x, {**leaves, **running}, setting)
    y.backward(dy.double())
    return {"y": y.detach(), "dx": x.grad, **{f"d{n}": p.grad for n, p in leaves.items()}, **running}


@ROWS
@BACKENDS
@ON
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("of_x", "of_parameters"), list(itertools.product(DTYPES, DTYPES)), ids=short)
def test_every_mixture(row, backend, device, training, of_x, of_parameters) -> None:
    """Within roundings of the coarser dtype; each gradient in the dtype of what it is of."""
    layer = layer_of(row, backend, of_parameters, device).train(training)
    x = noise(3, 8, 5, 5, dtype=EXACT).to(device, of_x).requires_grad_()
    dy = noise(3, 8, 5, 5, seed=9, dtype=EXACT).to(device, of_x)
    expected = exact(row, layer, x, dy, training)
    y = layer(x)
    y.backward(dy)
    gradients = {f"d{name}": p.grad for name, p in layer.named_parameters()}
    found = {"y": y.detach(), "dx": x.grad, **gradients, **dict(layer.named_buffers())}
    assert {name: value.dtype for name, value in found.items()} == {
        name: of_x if name in ("y", "dx") else of_parameters for name in expected
    }
    for name, value in expected.items():
        # What is computed in float32 at least is rounded to the dtype of x, and once more to that of the parameter.
        computed = torch.finfo(torch.float64 if of_x == torch.float64 else torch.float32).eps * 16
        rounded = max(torch.finfo(dtype).eps for dtype in (of_x, found[name].dtype)) * (4 if row.native else 1)
        error = (found[name].double() - value).abs().max() / value.abs().max().clamp_min(1e-3)
        assert error <= computed + rounded, (name, error.item(), computed + rounded)


@ROWS
@BACKENDS
@ON
@pytest.mark.parametrize(
    "modes", [(True, True), (False, True), (True, False)], ids=["both train", "eval first", "last"]
)
@pytest.mark.parametrize(
    "dtypes", [(torch.float64, torch.float32), (torch.float16, torch.float32), (torch.float32, torch.bfloat16)], ids=str
)
@pytest.mark.parametrize("of_parameters", [torch.float32, torch.float64], ids=short)
def test_two_calls_before_one_backward(row, backend, device, modes, dtypes, of_parameters) -> None:
    """The second call moves running statistics; the first one's gradient is that of the statistics it saw."""
    layer = layer_of(row, backend, of_parameters, device)
    inputs = [noise(3, 8, 5, 5, seed=i, dtype=EXACT).to(device, dtype) for i, dtype in enumerate(dtypes)]
    cotangents = [noise(3, 8, 5, 5, seed=5 + i, dtype=EXACT).to(device, dtype) for i, dtype in enumerate(dtypes)]

    def gradients(layer: NormActivation, at_once: bool) -> list[torch.Tensor]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        outputs = []
        for x, dy, training in zip(leaves, cotangents, modes, strict=True):
            outputs.append(layer.train(training)(x))
            if not at_once:
                outputs[-1].backward(dy)
        if at_once:
            torch.autograd.backward(outputs, cotangents)
        return [*(x.grad for x in leaves), *layer.buffers()]

    expected, found = gradients(copy.deepcopy(layer), False), gradients(layer, True)
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)


class _Dtypes(TorchDispatchMode):
    """The dtypes with which torch's own norm is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[set[torch.dtype]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "norm" in str(function) and "backward" not in str(function):
            self.seen.append({a.dtype for a in args if isinstance(a, torch.Tensor)})
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["gn-relu", "gn-silu"])
@pytest.mark.parametrize("of_x", DTYPES, ids=short)
@pytest.mark.parametrize("of_parameters", DTYPES, ids=short)
def test_off_the_cpu_torchs_group_norm_is_given_one_dtype(name, of_x, of_parameters) -> None:
    """On a GPU it refuses mixtures ("expected scalar type BFloat16 but found Float"); without one, meta stands in."""
    layer = NormActivation(8, name, groups=4, dtype=of_parameters, device="meta")
    with _Dtypes() as log:
        y = layer(torch.empty(2, 8, 4, 4, dtype=of_x, device="meta"))
    assert y.dtype == of_x
    assert [len(dtypes) for dtypes in log.seen] == [1]
