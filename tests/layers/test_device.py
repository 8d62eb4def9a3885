"""Nothing waits for the device and nothing is copied to or from it, as a CUDA graph needs.

On `meta`, where there are no values to read, with a look at each of torch's operations.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from evonorm import NormActivation
from evonorm.layers import kernels, reference
from evonorm.layers.formula import parse
from evonorm.layers.kernels import operators
from evonorm.layers.kernels.call import Call
from evonorm.layers.kernels.rows import ROWS as SERVED
from evonorm.layers.row import NormAct
from evonorm.layers.table import TABLE, Setting, get
from tests.on_device import on_device

pytestmark = pytest.mark.own_device
C = 8


def meta(*shape: int, dtype: torch.dtype = torch.float32, wanted: bool = True) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=dtype, requires_grad=wanted)


def parameters(row, conditional: bool = False) -> dict[str, torch.Tensor]:
    affine = {name: meta(*(2, C) if conditional else (C,)) for name in ("weight", "bias") if row.affine}
    return affine | {name: meta(C) for name in row.parameters} | {name: meta(C, wanted=False) for name in row.running}


@pytest.mark.parametrize(
    "what",
    [
        lambda x: float(x.sum()),
        lambda x: bool(x[0] > 1),
        lambda x: x.new_tensor(2.0),
        lambda x: x + torch.ones(2),
        lambda x: torch.ones(2).to(x.device),
    ],
    ids=["a number", "a choice", "a number's copy", "a tensor beside it", "a tensor's copy"],
)
def test_what_is_looked_for_is_seen(what) -> None:
    with pytest.raises((AssertionError, RuntimeError)), on_device():
        what(meta(2))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("conditional", [None, 5])
def test_a_layer(row, backend, conditional) -> None:
    layer = NormActivation(C, row.name, groups=4, backend=backend, conditional=conditional, device="meta")
    for dtype in (torch.float32, torch.bfloat16):
        given = (meta(2, C, 4, 4, dtype=dtype), *([] if conditional is None else [meta(2, 5)]))
        for training in (True, False):
            with on_device():
                layer.train(training)(*given).sum().backward()


def test_numbers_in_a_formula_of_ones_own() -> None:
    row = NormAct("mine", parse("max(x / std_group, 0.5) * weight + bias"), "")
    with on_device():
        reference.evaluate(row, meta(2, C, 4), parameters(row), Setting(groups=2)).sum().backward()


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("training", [True, False])
def test_the_operators(name, training) -> None:
    """With what they are to compilers in the place of the kernels."""
    row = get(name)
    with on_device():
        setting = Setting(groups=2 if row.grouped else 1, training=training)
        kernels.evaluate(row, meta(2, C, 4, 4), parameters(row), setting, "triton").sum().backward()


@pytest.fixture
def launched(monkeypatch) -> list[str]:
    """The names of Triton's kernels that would run."""
    if importlib.util.find_spec("triton") is None or not kernels.triton.INTERPRETED:
        pytest.skip("there is no Triton, or it does not interpret")
    from triton.runtime import interpreter

    names: list[str] = []
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", lambda self, *a, **o: names.append(self.fn.__name__))
    return names


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("conditional", [False, True])
def test_tritons_kernels_are_launched(name, conditional, launched) -> None:
    """All that is done about them in both directions, with kernels that do not run."""
    row = get(name)
    p = parameters(row, conditional)
    own = (p["weight"], p["bias"], p[next(iter(row.parameters))] if row.parameters else None)
    rest = (SERVED.index(name), 2 if row.grouped else 1, 1e-5)
    for shape in ((2, C, 4, 4), (2, C, 128, 128)):  # held, and split
        x = meta(*shape)
        for batch in [None, *([meta(2, C, wanted=False)] if row.running else [])]:
            with on_device(), torch.no_grad():
                _, stats, taken = operators._forward(x, *own, batch, *rest, "triton")
                count = float(x.numel() // C) if row.running and batch is None else 0.0
                given = batch if batch is not None or not row.running else taken
                operators._backward(x, x, *own, stats, given, *rest, count, "triton")
    assert {"whole_kernel", "columns_kernel"} <= set(launched) or row.running
    assert "apply_backward_kernel" in launched


@pytest.mark.parametrize("name", [row.name for row in TABLE if row.running])
def test_statistics_over_replicas(name, launched, monkeypatch) -> None:
    """torch.distributed, which gives each process the sum, left out."""
    from evonorm.layers.kernels import replicas

    monkeypatch.setattr(torch.distributed, "all_reduce", lambda t: None)
    row = get(name)
    with on_device():
        setting, p = Setting(replicas=2), parameters(row)
        reference.evaluate(row, meta(2, C, 4), p, setting).sum().backward()
        kernels.evaluate(row, meta(2, C, 4), p, setting, "triton").sum().backward()
    assert replicas.evaluate(Call(meta(2, C, 4), *[None] * 4, SERVED.index(name), 1, 1e-5, "triton"))[2].is_meta
