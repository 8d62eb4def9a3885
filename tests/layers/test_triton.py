"""Triton's kernels against the float64 reference: every row, dtype, memory format and way through them.

Without a GPU they run in Triton's interpreter, on CPU tensors; with one, on it (marker `gpu`).
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evonorm import NormActivation, norm_act
from evonorm.layers import kernels, reference
from evonorm.layers.kernels import triton as room
from evonorm.layers.kernels.cpu import library
from evonorm.layers.table import Setting, get
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
from tests.layers.yardstick import case, laid, noise, parameters, results, trains

# Where there is no Triton, on_triton ends this here.
# isort: split
from evonorm.layers.kernels.triton import plan, rows

pytestmark = MARKS

ORDERS = pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])

SHAPES = {
    "held": [
        (2, 6, 5, 3),  # groups of three channels: nothing divides a vector
        (3, 4, 1, 1),
        (1, 12, 9),  # one sample, one dimension
        (2, 3, 2, 3, 2),
    ],
    "read twice": [(2, 6, 7, 5)],
    "split": [(1, 10, 9, 5)],  # groups of five channels, of a tile of four
}


@pytest.fixture
def limits(monkeypatch):
    return functools.partial(force, monkeypatch)


def running_of(row, channels: int):
    return {name: noise((channels,), 7).float().abs() + 0.3 for name in row.running}


@ROWS
@ORDERS
@EACH_WAY
def test_against_float64(row, channels_last, way, limits, nan_filled_memory) -> None:
    """In training; rows with batch statistics, whose samples meet, in evaluation too, where they may not have to."""
    limits(way)
    for shape in SHAPES[way]:
        if trains(row, shape) and (way == "split" or not row.running or shape[2:] == (1, 1)):
            hold(*case(row, shape, torch.float32, channels_last))
        if row.running:
            hold(*case(row, shape, torch.float32, channels_last), running=running_of(row, shape[1]))


@ROWS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@ORDERS
def test_half_precision_against_float64(row, dtype, channels_last, limits, nan_filled_memory) -> None:
    ways = list(WAYS)
    limits(ways[(SERVED.index(row) + channels_last + (dtype is torch.float16)) % len(ways)])
    hold(*case(row, (2, 6, 5, 3), dtype, channels_last))


@pytest.mark.parametrize("row", KINDS, ids=lambda row: row.name)
@pytest.mark.parametrize("kind", ["mean 1e4", "first value far off", "constant", "below eps", "tiny", "huge"])
@pytest.mark.parametrize("way", ["held", "split"])
def test_hard_values(row, kind, way, limits) -> None:
    limits(way)
    shape = (2, 4, 10, 7)  # two chunks and a part of one
    x = noise(shape, 1)
    if kind == "mean 1e4":
        x = x + 1e4
    elif kind == "first value far off":
        x[:, :, 0, 0] = 3e3
    else:
        x = {"constant": x * 0 + 3, "below eps": x * 1e-4, "tiny": x * 1e-25, "huge": x * 1e15}[kind]
    # At a mean of 1e4 and a spread of 1, values within 1e-3 of a kink fall on either side of it, in the reference too.
    names = "y" if kind == "mean 1e4" and row.name in ("evonorm-b0", "frn-tlu") else ""
    x, dy = (laid(t, torch.float32, channels_last=way == "held") for t in (x, noise(shape, 2)))
    hold(row, x, dy, parameters(row, 4), names=names, orders=8)


@pytest.mark.parametrize(("space", "seed"), [((11, 9), 2), ((11, 9), 22), ((7, 5), 35), ((7, 5), 58)], ids=str)
def test_a_gradient_that_cancels(space, seed, limits) -> None:
    """That of v where x is constant, a multiple of the sum of dy.

    Of 60 seeds on three maps these four missed the bound that one order of the positions gives: the reference came very
    near by luck. The CPU's kernels missed three. Over the seeds both err alike, and less than the reference.
    """
    limits("split")
    x, dy = torch.full((2, 4, *space), 3.0), noise((2, 4, *space), seed).float()
    hold(get("evonorm-b0"), x, dy, parameters(get("evonorm-b0"), 4), orders=8)


@ROWS
@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_non_finite_inputs_propagate_as_in_the_reference(row, bad, limits) -> None:
    limits(list(WAYS)[SERVED.index(row) % 3])
    x = noise((2, 4, 3, 3), 1).float()
    x[1, 2, 1, 2] = bad
    dy, p = noise((2, 4, 3, 3), 2).float(), parameters(row, 4)
    found = results(
        lambda x, p: norm_act(x, row.name, **p, training=True, groups=2, backend="triton"),
        *(x.to(DEVICE), on_device(p), dy.to(DEVICE)),
    )
    expected = results(lambda x, p: reference.evaluate(row, x, p, Setting(groups=2 if row.grouped else 1)), x, p, dy)
    assert not torch.isfinite(found["y"]).all()
    for name in ("y", "dx"):
        assert torch.equal(torch.isfinite(found[name]).cpu(), torch.isfinite(expected[name])), name


@pytest.mark.parametrize("row", KINDS[:2], ids=lambda row: row.name)
def test_the_same_bits_every_time(row, limits, nan_filled_memory) -> None:
    limits("split")
    row, x, dy, p = case(row, (2, 6, 9, 5), torch.float32, True)

    def found() -> dict[str, torch.Tensor]:
        return results(
            lambda x, p: norm_act(x, row.name, **p, training=True, groups=2, backend="triton"),
            *(x.to(DEVICE), on_device(p), dy.to(DEVICE)),
        )

    first, again = found(), found()
    for name, value in first.items():
        assert torch.equal(value, again[name]), name


def test_views_and_expanded_inputs() -> None:
    base, row = noise((3, 12, 5, 5), 1).float(), get("evonorm-s0")
    for x in (base[:, ::2, 1:4, 2:], base[:, :6].transpose(2, 3), base[:1, :6].expand(3, -1, -1, -1)):
        hold(row, x, noise(tuple(x.shape), 2).float(), parameters(row, x.shape[1]))
    x = laid(base, torch.float32, True)
    hold(row, x, noise((), 3).float().expand(x.shape), parameters(row, 12))


@ROWS
def test_missing_weight_and_bias_count_as_one_and_zero(row) -> None:
    x = noise((2, 4, 3, 3), 1).float()
    hold(row, x, noise((2, 4, 3, 3), 2).float(), {n: v for n, v in parameters(row, 4).items() if n in row.parameters})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_parameters_in_another_dtype_get_gradients_in_it(dtype) -> None:
    layer = NormActivation(4, groups=2, dtype=dtype, backend="triton", device=DEVICE)
    layer(noise((1, 4, 3, 3), 1).bfloat16().to(DEVICE)).sum().backward()
    assert {p.grad.dtype for p in layer.parameters()} == {dtype}


@pytest.mark.parametrize("name", ["evonorm-b0", "bn-relu"])
def test_running_statistics_are_those_of_the_reference(name) -> None:
    x = (noise((3, 6, 4, 5), 1) * 2 + 3).float().to(DEVICE)
    layers = [NormActivation(6, name, backend=b, momentum=0.3, device=DEVICE) for b in ("triton", "reference")]
    for layer in layers:
        layer(x)
        layer(x + 1)
    for buffer_name, buffer in layers[0].named_buffers():
        torch.testing.assert_close(buffer, layers[1].get_buffer(buffer_name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", KINDS, ids=lambda row: row.name)
def test_x_is_the_only_full_size_tensor_saved(row) -> None:
    layer = NormActivation(4, row.name, groups=2, backend="triton", device=DEVICE)
    x = laid(noise((2, 4, 12, 12), 1), torch.bfloat16, True).to(DEVICE).requires_grad_()
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(x)
    assert {t.data_ptr() for t in saved if t.numel() >= x.numel()} == {x.data_ptr()}


@pytest.mark.parametrize("name", ["evonorm-s0", "evonorm-b0"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor that is not a leaf")
def test_opcheck(name) -> None:
    row = get(name)
    _, x, dy, p = case(row, (2, 4, 3, 3), torch.float32, True)
    own = [t.to(DEVICE).requires_grad_() for t in (x, p["weight"], p["bias"], p["v"])]
    rest = (library.ROWS.index(name), 2 if row.grouped else 1, 1e-5)
    # Without the tests that compile: Inductor would hand Triton, which interprets here, kernels of its own.
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.evonorm.forward.default, (*own, None, *rest, "triton"), test_utils=tests)
    _, stats, taken = torch.ops.evonorm.forward(*own, None, *rest, "triton")
    own = [t.detach() for t in own]
    arguments = (dy.to(DEVICE), *own, stats, taken if row.running else None, *rest, 18.0 if row.running else 0.0)
    torch.library.opcheck(torch.ops.evonorm.backward.default, (*arguments, "triton"), test_utils=tests)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_whole_calls_the_operators(dynamic) -> None:
    """Opaque to the compiler: gradients are those of eager."""
    torch.compiler.reset()
    layer = NormActivation(4, groups=2, backend="triton", device=DEVICE)
    compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    found = []
    for each in (compiled, layer):
        x = noise((2, 4, 3, 3), 1).float().to(DEVICE).requires_grad_()
        y = each(x)
        found.append((y, *torch.autograd.grad(y, [x, *layer.parameters()], noise((2, 4, 3, 3), 2).float().to(DEVICE))))
    for ours, eager in zip(*found, strict=True):
        assert torch.equal(ours, eager)


@pytest.mark.parametrize("name", ["evonorm-s0", "evonorm-b0"])
def test_second_derivatives_are_those_of_the_reference(name) -> None:
    found = []
    for backend in ("triton", "reference"):
        x = noise((2, 4, 3, 3), 1).float().to(DEVICE).requires_grad_()
        p = {name: value.requires_grad_() for name, value in on_device(parameters(get(name), 4)).items()}
        y = norm_act(x, name, **p, training=True, groups=2, backend=backend)
        (slope,) = torch.autograd.grad(y, x, noise((2, 4, 3, 3), 2).float().to(DEVICE), create_graph=True)
        slope.square().sum().backward()
        found.append([torch.zeros(1) if t.grad is None else t.grad.cpu() for t in (x, *p.values())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs.expand_as(ours), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("x", "layer", "activate", "why"),
    [
        (torch.ones(1, 8, 2, 2, dtype=torch.float64), "evonorm-s0", True, "float64 input; the kernels take float32, "),
        (torch.ones(1, 8, 2, 2, device="meta"), "evonorm-s0", True, "x on meta; the Triton kernels are for CUDA"),
        (torch.ones(0, 8, 2, 2), "evonorm-s0", True, "empty input"),
        (torch.ones(1, 8, 2, 2), "evonorm-s0", False, "activate=False"),
        (torch.ones(1, 8, 2, 2), "none", True, "none has no kernel"),
        (torch.ones(1, 8, 1, 1), "bn-relu", True, "one value a channel"),
    ],
)
def test_what_is_not_served_is_said(x, layer, activate, why) -> None:
    x = x if x.is_meta else x.to(DEVICE)
    assert why in kernels.supports(get(layer), x, Setting(activate=activate), "triton")
    with pytest.raises(ValueError, match=f"backend='triton' does not serve {layer} here: .*{why}"):
        NormActivation(8, layer, groups=4, activate=activate, backend="triton", device=x.device)(x)


def test_until_measured_a_gpu_gets_them_only_by_name() -> None:
    why = kernels.serves(get("evonorm-s0"), torch.device("cuda"))
    assert why == "x on cuda, where Triton's kernels are not yet measured: ask for them with backend='triton'"
    assert kernels.serves(get("evonorm-s0"), torch.device("cuda"), "triton") is None


@pytest.mark.parametrize("name", ["evonorm-b0", "evonorm-b1", "bn-relu"])
def test_the_two_phases_of_replicas_are_backward(name) -> None:
    """With one replica, whose totals are the sum."""
    two_phases_are_backward(name, *case(get(name), (2, 6, 5, 3), torch.float32, False)[1:])


SIZES = [
    plan.Sizes(n, c, s, groups, itemsize, last)
    for n, c, s, groups in [
        (2, 64, 112 * 112, 32),  # ResNet's stem, two samples
        (128, 96, 1024, 32),
        (256, 256, 56 * 56, 32),
        (2, 256, 200 * 304, 32),
        (1, 2048, 49, 1),
        (1, 8, 64**3, 8),
        (4, 25, 99, 5),
        (256, 512, 1, 512),
        (3, 130, 121, 130),
        (256, 960, 1, 10),
    ]
    for itemsize in (2, 4)
    for last in (False, True)
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_cut_covers_all_once_and_fills_the_chip(sizes) -> None:
    """132 multiprocessors, that is; maps that take no time at all are left to fewer programs."""
    size, values = sizes.c // sizes.groups, sizes.n * sizes.c * sizes.s
    cuts = [plan.whole(sizes, plan.LIMITS, backward=backward) for backward in (False, True)]
    for cut in [*filter(None, cuts), plan.split(sizes, plan.LIMITS)]:
        assert (cut.tiles - 1) * cut.span < sizes.c <= cut.tiles * cut.span
        assert (cut.chunks - 1) * cut.length < sizes.s <= cut.chunks * cut.length
        assert cut.span <= cut.channels
        assert plan.up(cut.channels) == cut.channels
        assert plan.up(cut.positions) == cut.positions
        assert not cut.held or cut.positions >= sizes.s
        assert sizes.n * cut.tiles * cut.chunks >= min(132, values // 16384)
    for cut, held in zip(cuts, (plan.LIMITS.held_forward, plan.LIMITS.held_backward), strict=True):
        assert cut is None or cut.span % size == 0
        # Groups are told apart by comparing all of a tile's channels with all.
        assert cut is None or size in (1, cut.span) or cut.channels <= plan.LIMITS.channels
        assert cut is None or cut.held == (cut.channels * plan.up(sizes.s) <= held)
    meeting = plan.meeting(sizes, plan.LIMITS, chunks=plan.LIMITS.chunks)
    assert meeting.span % size == 0
    assert meeting.span == size or meeting.span <= meeting.channels


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("c", "side"), [(64, 56), (128, 56), (256, 56), (96, 32), (512, 28), (1024, 14), (512, 7)])
def test_what_fits_the_cache_is_not_split(c, side, backward) -> None:
    """ResNet-50 behind its stem, and the report's network; with 16 bytes a load or more."""
    cut = plan.whole(plan.Sizes(256, c, side * side, 32, 2, True), plan.LIMITS, backward=backward)
    assert cut is not None
    assert cut.span % 8 == 0


def test_what_was_chosen_is_said() -> None:
    x = torch.empty(128, 96, 32, 32, dtype=torch.bfloat16, device="meta")
    said = room.chosen("evonorm-s0", x, True, 32, training=True)
    assert said["forward"] == "one kernel, 512 programs, each 24 channels x all positions, tile 32 x 256 read by blocks"
    said = room.chosen("evonorm-b0", x, True, 32, training=True)
    assert said["backward"].startswith("passes that meet, ")


def test_the_compiler_takes_every_kernel(tmp_path) -> None:
    """For a Hopper GPU that need not be there: what interprets need not compile."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.layers.compiled"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    made = [json.loads(line) for line in done.stdout.splitlines()]
    assert {rows.ROWS[kernel["row"]].slope for kernel in made} == {row.slope for row in rows.ROWS.values()}
    assert len({kernel["kernel"] for kernel in made}) == 10
    for kernel in made:
        # Whole vectors, wherever the sizes allow: a pass over x that loads by single values takes twice the time.
        passes = kernel["kernel"].startswith(("whole", "apply", "moments", "sums"))
        assert not passes or kernel["shape"][1] < 32 or kernel["widest_load_bytes"] == 16, kernel
        assert kernel["offset_bits"] in ([], [64]), kernel
    assert any(kernel["offset_bits"] for kernel in made)


if DEVICE == "cuda":

    @ROWS
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
    @ORDERS
    @pytest.mark.parametrize(
        "shape", [(128, 96, 32, 32), (16, 256, 56, 56), (2, 64, 112, 112), (64, 512, 7, 7)], ids=str
    )
    def test_shapes_of_networks_against_float64(row, dtype, channels_last, shape, nan_filled_memory) -> None:
        hold(*case(row, shape, dtype, channels_last), groups=32 if row.grouped else 1)

    @pytest.mark.parametrize("row", KINDS, ids=lambda row: row.name)
    def test_captured_in_a_cuda_graph(row) -> None:
        """Forward, running statistics and backward: replayed on new input, the graph gives what eager gives."""
        layer = NormActivation(48, row.name, groups=8, backend="triton", device=DEVICE)
        x = noise((4, 48, 9, 9), 1).float().to(DEVICE).requires_grad_()
        dy = noise((4, 48, 9, 9), 2).float().to(DEVICE)
        before = {name: buffer.clone() for name, buffer in layer.named_buffers()}

        def step() -> tuple[torch.Tensor, ...]:
            y = layer(x)
            return y, *torch.autograd.grad(y, [x, *layer.parameters()], dy)

        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            step()
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        layer.load_state_dict(layer.state_dict() | before)
        with torch.no_grad():
            x.copy_(noise((4, 48, 9, 9), 3))
        graph.replay()
        replayed = [t.clone() for t in captured] + [buffer.clone() for buffer in layer.buffers()]
        layer.load_state_dict(layer.state_dict() | before)
        for ours, eager in zip(replayed, [*step(), *layer.buffers()], strict=True):
            assert torch.equal(ours, eager)
