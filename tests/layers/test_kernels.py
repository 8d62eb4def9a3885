"""The fused kernels against the float64 reference: every row, dtype, memory format, instruction set and hard shape."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evonorm import NormActivation, norm_act
from evonorm.layers import kernels, reference
from evonorm.layers.kernels.cpu import library
from evonorm.layers.row import NormAct
from evonorm.layers.table import TABLE, Setting, get
from tests.layers.conftest import DEVICE
from tests.layers.yardstick import case, check, laid, noise, parameters, results, trains

if DEVICE == "cpu" and not kernels.available():
    if os.environ.get("CI"):
        raise RuntimeError(f"CI must test the kernels: {kernels.reason()}")
    pytest.skip(f"no kernels here: {kernels.reason()}", allow_module_level=True)

SERVED = [row for row in TABLE if row.name in library.ROWS]
BATCHED = [row for row in SERVED if row.running]
ROWS = pytest.mark.parametrize("row", SERVED, ids=lambda row: row.name)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
ORDERS = pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])

SHAPES = [
    (2, 63, 7, 5),  # nothing divides a vector
    (3, 48, 9, 9),  # whole vectors in channels-last, not in contiguous
    (2, 8, 16, 16),  # less than a vector of channels
    (4, 5, 3, 3),
    (2, 64, 1, 1),  # one value an instance
    (1, 96, 32, 32),  # one sample, cut into chunks for several threads
    (3, 4, 70, 61),  # strips that end early, chunks of unequal size
    (1, 448, 12, 22),  # chunks of whole strips: five fill what eight were wanted for
    (2, 1, 4, 4),
    (1, 3, 1, 1),
    (70, 6, 2, 3),  # more samples than wanted tasks
    (2, 130, 11, 11),
]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@ROWS
@DTYPES
@ORDERS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_float64(row, shape, dtype, channels_last, nan_filled_memory) -> None:
    if not trains(row, shape):
        pytest.skip("torch's batch norm refuses one value a channel, and so does backend='kernel'")
    check(*case(row, shape, dtype, channels_last))


@pytest.mark.own_device
@pytest.mark.parametrize("name", sorted(set(library.variants()) - {library.instructions()}))
@ROWS
@DTYPES
@ORDERS
def test_other_instruction_sets_against_float64(name, row, dtype, channels_last) -> None:
    with library.using(name):
        for shape in [(2, 63, 7, 5), (3, 48, 9, 9), (1, 24, 24, 24)]:
            check(*case(row, shape, dtype, channels_last))


@ROWS
@given(
    batch=st.integers(1, 5),
    groups=st.integers(1, 5),
    size=st.integers(1, 9),
    space=st.lists(st.integers(1, 11), min_size=1, max_size=3),
    bf16=st.booleans(),
    channels_last=st.booleans(),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_over_shapes(row, batch, groups, size, space, bf16, channels_last, seed) -> None:
    shape = (batch, groups * size, *space)
    positions = torch.Size(space).numel()
    values = positions * (size if row.grouped else batch if row.native else 1)
    # Of a handful of values the gradient all but cancels, and either side's error is a matter of luck; SHAPES has such.
    if values >= 16:
        dtype = torch.bfloat16 if bf16 else torch.float32
        check(*case(row, shape, dtype, channels_last, seed), groups=groups if row.grouped else 1)


@pytest.mark.parametrize("row", BATCHED, ids=lambda row: row.name)
@DTYPES
@ORDERS
def test_evaluation_takes_running_statistics(row, dtype, channels_last) -> None:
    row, x, dy, p = case(row, (3, 48, 9, 7), dtype, channels_last)
    running = {name: noise((48,), 7).float().abs() + 0.3 for name in row.running}
    check(row, x, dy, p, running=running)


@pytest.mark.own_device
@ROWS
@DTYPES
@ORDERS
@pytest.mark.parametrize("shape", [(1, 96, 40, 40), (3, 40, 33, 21), (6, 24, 24, 24)], ids=str)
def test_bits_depend_neither_on_threads_nor_on_the_run(row, dtype, channels_last, shape, threads) -> None:
    """Alone, a thread does a sample's steps one after the other; with others it may have to meet them between."""
    row, x, dy, p = case(row, shape, dtype, channels_last)

    def found() -> dict[str, torch.Tensor]:
        return results(lambda x, p: norm_act(x, row.name, **p, training=True, groups=8, backend="kernel"), x, p, dy)

    torch.set_num_threads(1)
    expected = found()
    for count in (2, 2, 3, 5):
        torch.set_num_threads(count)
        for name, value in found().items():
            assert torch.equal(value, expected[name]), (name, count)


@ROWS
@ORDERS
@pytest.mark.parametrize("kind", ["mean 1e4", "first value far off", "constant", "zero", "below eps", "tiny", "huge"])
def test_hard_values(row, channels_last, kind) -> None:
    shape = (2, 48, 13, 13)
    x = noise(shape, 1)
    if kind == "mean 1e4":
        x = x + 1e4
    elif kind == "first value far off":
        x[:, :, 0, 0] = 3e3
    else:
        x = {"constant": x * 0 + 3, "zero": x * 0, "below eps": x * 1e-4, "tiny": x * 1e-25, "huge": x * 1e15}[kind]
    # At a mean of 1e4 and a spread of 1, values within 1e-3 of a kink fall on either side of it, in the reference too.
    kinked = row.name.endswith(("relu", "tlu", "b0", "b1", "b2"))
    names = "y" if kind == "mean 1e4" and kinked else ""
    x, dy = (laid(t, torch.float32, channels_last) for t in (x, noise(shape, 2)))
    check(row, x, dy, parameters(row, 48), names=names)


@ROWS
@DTYPES
@ORDERS
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_inputs_propagate_as_in_the_reference(row, dtype, channels_last, bad) -> None:
    x = noise((3, 40, 6, 6), 1)
    x[1, 17, 2, 3] = bad
    x = laid(x, dtype, channels_last)
    p = parameters(row, 40)
    found, expected = (
        results(f, x, p, noise((3, 40, 6, 6), 2))
        for f in (
            lambda x, p: norm_act(x, row.name, **p, training=True, groups=8, backend="kernel"),
            lambda x, p: reference.evaluate(row, x, p, Setting(groups=8 if row.grouped else 1)),
        )
    )
    assert not torch.isfinite(found["y"]).all()
    assert torch.equal(torch.isfinite(found["y"]), torch.isfinite(expected["y"]))
    # A gradient that the reference has as finite must be, and the other way round.
    assert torch.equal(torch.isfinite(found["dx"]), torch.isfinite(expected["dx"]))


@ROWS
def test_views_slices_and_expanded_inputs(row) -> None:
    base = noise((4, 32, 9, 9), 1).float()
    for x in (base[:, ::2, 1:8, 2:], base[:, :16].transpose(2, 3), base[:1].expand(4, -1, -1, -1), base[..., ::2]):
        check(row, x, noise(tuple(x.shape), 2).float(), parameters(row, x.shape[1]))
    x = laid(base, torch.float32, True)
    check(row, x, noise((), 3).float().expand(x.shape), parameters(row, 32))  # a cotangent without memory of its own


@ROWS
def test_missing_weight_and_bias_count_as_one_and_zero(row) -> None:
    x = noise((2, 16, 5, 5), 1).float()
    own = {name: value for name, value in parameters(row, 16).items() if name in row.parameters}
    full = own | {"weight": torch.ones(16), "bias": torch.zeros(16)}
    bare = norm_act(x, row.name, **own, training=True, groups=4, backend="kernel")
    assert torch.equal(bare, norm_act(x, row.name, **full, training=True, groups=4, backend="kernel"))
    check(row, x, noise((2, 16, 5, 5), 2).float(), own)


@ROWS
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_parameters_in_another_dtype_get_gradients_in_it(row, dtype) -> None:
    layer = NormActivation(16, row.name, groups=4, dtype=dtype, backend="kernel")
    x = noise((2, 16, 5, 5), 1).bfloat16()
    layer(x).backward(noise((2, 16, 5, 5), 2).bfloat16())
    assert {p.grad.dtype for p in layer.parameters()} == {dtype}


@pytest.mark.parametrize("row", BATCHED, ids=lambda row: row.name)
@ORDERS
def test_running_statistics_are_those_of_the_reference(row, channels_last) -> None:
    x = laid(noise((3, 24, 9, 5), 1) * 2 + 3, torch.float32, channels_last)
    layers = [NormActivation(24, row.name, backend=backend, momentum=0.3) for backend in ("kernel", "reference")]
    for layer in layers:
        layer(x)
        layer(x + 1)
    for name, buffer in layers[0].named_buffers():
        torch.testing.assert_close(buffer, layers[1].get_buffer(name), rtol=1e-5, atol=1e-5)


@pytest.mark.own_device
@pytest.mark.parametrize("name", library.variants())
def test_sigmoid_is_within_its_stated_error(name) -> None:
    """4 ulp for |z| <= 16, 1.3e-8 * |z| of itself beyond; seen through bn-silu, whose y is then z * sigmoid(z)."""
    z = torch.linspace(-80, 80, 400_001)
    with library.using(name):
        running = {"running_mean": torch.zeros(1), "running_var": torch.ones(1)}
        y = norm_act(z.view(1, 1, -1), "bn-silu", **running, eps=0.0, backend="kernel").flatten()
    exact = torch.sigmoid(z.double())
    # y is rounded once more.
    off = ((y.double() / z.double()).nan_to_num(0.5) - exact).abs() / exact
    off[z == 0] = 0
    ulp = 2.0**-23
    assert off[z.abs() <= 16].max() <= 4.5 * ulp
    assert (off <= 4.5 * ulp + 1.3e-8 * z.abs()).all()


@ROWS
@DTYPES
def test_x_is_the_only_full_size_tensor_saved(row, dtype) -> None:
    layer = NormActivation(48, row.name, groups=8, backend="kernel")
    x = laid(noise((4, 48, 16, 16), 1), dtype, True).requires_grad_()
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(x)
    full = {t.data_ptr() for t in saved if t.numel() >= x.numel()}
    assert full == {x.data_ptr()}
    assert sum(t.numel() for t in saved if t.data_ptr() not in full) <= 2 * 4 * 48 + 8 * 48


@ROWS
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor that is not a leaf")
def test_opcheck(row, training) -> None:
    """torch's own test of an operator: schema, autograd registration, fake tensors, compilation with open shapes."""
    _, x, dy, p = case(row, (2, 16, 5, 3), torch.float32, True)
    extra = p.get(next(iter(row.parameters), ""))
    given = None if training or not row.running else noise((2, 16), 5).float().abs() + 0.1
    index, groups = library.ROWS.index(row.name), 4 if row.grouped else 1
    own = [x, p["weight"], p["bias"], extra]
    own = [None if t is None else t.detach().requires_grad_() for t in own]
    torch.library.opcheck(torch.ops.evonorm.forward.default, (*own, given, index, groups, 1e-5))
    _, stats, taken = torch.ops.evonorm.forward(*own, given, index, groups, 1e-5)
    batch = given if given is not None else (taken if row.running else None)
    count = 30.0 if row.running and training else 0.0
    torch.library.opcheck(
        torch.ops.evonorm.backward.default,
        (dy, *[None if t is None else t.detach() for t in own], stats, batch, index, groups, 1e-5, count),
    )


@ROWS
@pytest.mark.parametrize("training", [True, False])
def test_second_derivatives_are_those_of_the_reference(row, training) -> None:
    """A gradient penalty, as GANs train with."""
    running = {} if training else {name: noise((6,), 4).float().abs() + 0.2 for name in row.running}
    found = []
    for backend in ("kernel", "reference"):
        x = noise((3, 6, 4, 3), 1).float().requires_grad_()
        p = {name: value.requires_grad_() for name, value in parameters(row, 6).items()}
        y = norm_act(x, row.name, **p, **running, training=training, groups=3, backend=backend)
        (slope,) = torch.autograd.grad(y, x, noise(tuple(x.shape), 2).float(), create_graph=True)
        slope.square().sum().backward()
        found.append([t.grad for t in (x, *p.values())])
    for ours, theirs in zip(*found, strict=True):
        ours, theirs = (torch.zeros(1) if g is None else g for g in (ours, theirs))
        torch.testing.assert_close(ours, theirs.expand_as(ours), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("row", [row for row in TABLE if row.variant_of], ids=lambda row: row.name)
def test_a_variant_is_served_by_its_rows_kernel(row: NormAct) -> None:
    """With its own epsilon; without its activation it is the reference's, as every row."""
    x, extra = noise((2, 64, 3, 3), 1).float(), {name: noise((64,), 2).float() for name in row.parameters}
    y = norm_act(x, row.name, **extra, backend="kernel")
    assert torch.equal(y, norm_act(x, str(row.variant_of), **extra, eps=1e-3, backend="kernel"))
    assert not torch.allclose(y, norm_act(x, str(row.variant_of), **extra, backend="kernel"), rtol=1e-5)
    with pytest.raises(ValueError, match="activate=False"):
        norm_act(x, row.name, activate=False, backend="kernel")


@pytest.mark.parametrize("name", ["evonorm-s0", "evonorm-b0", "bn-relu"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_whole_calls_the_kernel(name, dynamic) -> None:
    torch.compiler.reset()
    layer = NormActivation(16, name, groups=4, backend="kernel")
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic, backend=backend)
    x = noise((2, 16, 5, 5), 1).float()
    torch.testing.assert_close(compiled(x), layer(x))
    assert any("evonorm.forward" in str(node.target) for graph in graphs for node in graph.graph.nodes)


def test_export_holds_no_operator_of_ours() -> None:
    layer = NormActivation(16, groups=4).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # raised by torch inside its own exporter
        exported = torch.export.export(layer, (noise((2, 16, 5, 5), 1).float(),))
    assert "evonorm" not in {str(node.target).split(".")[0] for node in exported.graph.nodes}


def test_func_transforms_take_the_reference() -> None:
    layer = NormActivation(8, groups=4)
    x = noise((5, 2, 8, 3, 3), 1).float()
    torch.testing.assert_close(torch.vmap(layer)(x), torch.stack([layer(part) for part in x]))


@pytest.mark.own_device
@pytest.mark.parametrize(
    ("x", "layer", "activate", "why"),
    [
        (torch.ones(1, 8, 2, 2, dtype=torch.float64), "evonorm-s0", True, "float64 input"),
        (torch.ones(1, 8, 2, 2, dtype=torch.float16), "evonorm-s0", True, "float16 input"),
        (torch.ones(1, 8, 2, 2, device="meta"), "evonorm-s0", True, "x on meta"),
        (torch.ones(0, 8, 2, 2), "evonorm-s0", True, "empty input"),
        (torch.ones(1, 8, 2, 2), "evonorm-s0", False, "activate=False"),
        (torch.ones(1, 8, 2, 2), "none", True, "none has no kernel"),
        (torch.ones(1, 8, 1, 1), "bn-relu", True, "one value a channel"),
    ],
)
def test_what_is_not_served_is_said(x, layer, activate, why) -> None:
    assert why in kernels.supports(get(layer), x, Setting(activate=activate))
    with pytest.raises(ValueError, match=f"backend='kernel' does not serve {layer} here: .*{why}"):
        NormActivation(8, layer, groups=4, activate=activate, backend="kernel")(x)


def test_an_unknown_backend_is_refused() -> None:
    for call in (
        lambda: NormActivation(8, backend="cuda"),
        lambda: norm_act(torch.ones(1, 8, 2, 2), v=torch.ones(8), groups=4, backend="cuda"),
    ):
        with pytest.raises(ValueError, match="backend must be one of auto, kernel, triton, reference: got 'cuda'"):
            call()


@pytest.mark.own_device
@pytest.mark.parametrize("place", ["missing.so", "text.so"])
def test_without_kernels_layers_work_and_say_so_once(tmp_path, place) -> None:
    (tmp_path / "text.so").write_text("not a library")
    code = (
        "import warnings, torch, evonorm; from evonorm.layers import kernels\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(2): evonorm.NormActivation(8, groups=4)(torch.ones(2, 8, 3, 3))\n"
        "print(len(caught), caught[0].message, kernels.available(), kernels.instructions())\n"
    )
    environment = os.environ | {library.PLACE: str(tmp_path / place)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 evonorm: the kernels ")
    assert "composed of tensor operations" in done.stdout
    assert done.stdout.strip().endswith("False none")
