"""Weight and bias of each sample, from a condition: every row against the same row, sample by sample."""

from __future__ import annotations

import copy
import pickle
import re
import warnings

import pytest
import torch
from torch import fx, nn

import evonorm
from evonorm import NormActivation, norm_act
from evonorm.layers import kernels, reference
from evonorm.layers.kernels.rows import ROWS as ROWS_WITH_KERNELS
from evonorm.layers.row import NormAct
from evonorm.layers.table import TABLE, Setting, get
from tests import tensors
from tests.layers.yardstick import case, check, trains

ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
AFFINE = pytest.mark.parametrize("row", [row for row in TABLE if row.affine], ids=lambda row: row.name)
FEATURES = 5
# Those of the processor alone.
KERNELS = pytest.mark.skipif(not kernels.available(), reason=str(kernels.reason()))
SHAPES = [
    (3, 63, 7, 5),  # nothing divides a vector
    (2, 6, 1, 1),  # one value an instance
    (1, 32, 9),
    (2, 64, 40, 40),  # several chunks
    (5, 8, 2, 3, 4),
]


def noise(*shape: int, seed: int = 3) -> torch.Tensor:
    return tensors.noise(*shape, seed=seed, dtype=torch.float64)


def layer_of(name: str, channels: int = 8, **options) -> NormActivation:
    """Conditional, with maps that are not zero."""
    layer = NormActivation(channels, name, conditional=FEATURES, fit_groups=True, **options)
    with torch.no_grad():
        for index, parameter in enumerate(layer.parameters()):
            parameter.copy_(noise(*parameter.shape, seed=index) * 0.5)
    return layer


def gradients(y: torch.Tensor, leaves: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    y.backward(noise(*y.shape, seed=8).to(y.dtype))
    return {"y": y.detach(), **{f"d{name}": leaf.grad for name, leaf in leaves.items()}}


@AFFINE
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activate", [True, False])
def test_each_sample_has_its_own_affine(row: NormAct, training: bool, activate: bool) -> None:
    """In the function, sample by sample: the same y and gradients as with that sample's weight and bias alone."""
    used = row.read(activate=activate)
    running = {name: noise(6, seed=20).abs() + 0.5 for name in used.running}
    x = noise(3, 6, 4, 5)
    if training and used.running:  # one batch for every sample's statistics
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        given = {"running_mean": mean, "running_var": var}
        running = {name: given[name] for name in used.running}
    own = {name: noise(6, seed=30) for name in used.parameters}
    settings = {"groups": 3, "activate": activate}
    w, b = noise(3, 6, seed=40), noise(3, 6, seed=50)
    whole = {"x": x.clone(), "w": w.clone(), "b": b.clone()}
    for leaf in whole.values():
        leaf.requires_grad_()
    there = {name: value.clone() for name, value in running.items()}
    y = norm_act(whole["x"], row.name, whole["w"], whole["b"], **own, **there, training=training, **settings)
    found = gradients(y, whole)
    dy = noise(*y.shape, seed=8)
    for i in range(3):
        leaves = {"x": x[i : i + 1].clone(), "w": w[i].clone(), "b": b[i].clone()}
        for leaf in leaves.values():
            leaf.requires_grad_()
        alone = norm_act(leaves["x"], row.name, leaves["w"], leaves["b"], **own, **running, **settings)
        alone.backward(dy[i : i + 1])
        torch.testing.assert_close(found["y"][i : i + 1], alone.detach())
        torch.testing.assert_close(found["dw"][i], leaves["w"].grad)
        torch.testing.assert_close(found["db"][i], leaves["b"].grad)
        if not (training and used.running):  # else x reaches the other samples through the batch's statistics
            torch.testing.assert_close(found["dx"][i : i + 1], leaves["x"].grad)


@AFFINE
def test_gradients_against_finite_differences(row: NormAct) -> None:
    own = {name: noise(6, seed=30) for name in row.parameters}

    def y(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return norm_act(x, row.name, w, b, **own, training=True, groups=3)

    leaves = [noise(2, 6, 3, 2), noise(2, 6, seed=4), noise(2, 6, seed=5)]
    assert torch.autograd.gradcheck(y, [leaf.requires_grad_() for leaf in leaves])


@AFFINE
def test_equal_rows_are_the_unconditional_layer(row: NormAct) -> None:
    x, w, b = noise(3, 6, 4, 4), noise(6, seed=4), noise(6, seed=5)
    own = {name: noise(6, seed=30) for name in row.parameters}
    one = norm_act(x, row.name, w, b, **own, training=True, groups=3)
    each = norm_act(x, row.name, w.expand(3, 6), b.expand(3, 6), **own, training=True, groups=3)
    torch.testing.assert_close(each, one)
    mixed = norm_act(x, row.name, w.expand(3, 6), b, **own, training=True, groups=3)
    torch.testing.assert_close(mixed, one)


@AFFINE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(row: NormAct, dtype: torch.dtype) -> None:
    """As near to float64 as the dtype allows, weight and bias in float32."""
    x, w, b = noise(3, 6, 4, 4), noise(3, 6, seed=4), noise(3, 6, seed=5)
    own = {name: noise(6, seed=30) for name in row.parameters}
    exact = norm_act(x.to(dtype).double(), row.name, w, b, **own, training=True, groups=3)
    own = {name: value.float() for name, value in own.items()}
    y = norm_act(x.to(dtype), row.name, w.float(), b.float(), **own, training=True, groups=3)
    assert y.dtype == dtype
    # torch's own norms round before the affine too, and a bias may cancel what is left.
    ulp = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), exact, rtol=16 * ulp, atol=16 * ulp)


@ROWS
def test_module_is_the_function_of_its_maps(row: NormAct) -> None:
    layer = layer_of(row.name)
    x, condition = noise(2, 8, 4, 4).float(), noise(2, FEATURES, seed=9).float()
    own = {name: getattr(layer, name) for name in row.parameters}
    affine = {}
    if row.affine:
        affine = {"weight": 1 + condition @ layer.to_weight.weight.T, "bias": condition @ layer.to_bias.weight.T}
    expected = norm_act(x, row.name, **affine, **own, training=True, groups=8)
    torch.testing.assert_close(layer(x, condition), expected)


@ROWS
def test_state_begins_as_the_unconditional_layer(row: NormAct) -> None:
    layer, plain = (NormActivation(8, row.name, groups=4, conditional=features) for features in (FEATURES, None))
    maps = {"to_weight.weight", "to_bias.weight"} if row.affine else set()
    assert set(layer.state_dict()) == (set(plain.state_dict()) - {"weight", "bias"}) | maps
    x = noise(2, 8, 4, 4).float()
    torch.testing.assert_close(layer(x, noise(2, FEATURES).float()), plain(x))


def test_initial_state_again() -> None:
    layer = layer_of("evonorm-b0")
    layer.reset_parameters()
    fresh = NormActivation(8, "evonorm-b0", conditional=FEATURES)
    torch.testing.assert_close(layer.state_dict(), fresh.state_dict())


def test_another_module_may_stand_for_a_map() -> None:
    """As in diffusion's U-Nets, whose maps have a bias, and in BigGAN, whose have spectral norm."""
    layer = layer_of("gn-silu")
    layer.to_weight = nn.Linear(FEATURES, 8, bias=True)
    layer.to_bias = nn.utils.parametrizations.spectral_norm(nn.Linear(FEATURES, 8, bias=False))
    layer(noise(2, 8, 4, 4).float(), noise(2, FEATURES).float()).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize(
    ("conditional", "condition", "words"),
    [
        (5, None, "this layer is conditional, with 5 features: call layer(x, condition), condition (N, 5)"),
        (None, (2, 5), "this layer takes no condition, got one of shape (2, 5): build it with conditional=5, or call"),
        (5, (2, 4), "condition must be (N, features), here (2, 5): got shape (2, 4) for x of shape (2, 8, 4, 4)"),
        (5, (3, 5), "condition must be (N, features), here (2, 5): got shape (3, 5)"),
        (5, (5,), "condition must be (N, features), here (2, 5): got shape (5,)"),
    ],
)
def test_a_condition_that_is_wrong(conditional, condition, words: str) -> None:
    layer = NormActivation(8, groups=4, conditional=conditional)
    with pytest.raises(ValueError, match=re.escape(words)):
        layer(torch.zeros(2, 8, 4, 4), None if condition is None else torch.zeros(condition))


@pytest.mark.parametrize(
    ("features", "words"),
    [(0, "conditional must be at least 1: got conditional=0"), (True, "conditional must be a whole number")],
)
def test_features_that_are_wrong(features, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        NormActivation(8, groups=4, conditional=features)


def test_parameters_of_another_shape() -> None:
    x = torch.zeros(2, 8, 4, 4)
    with pytest.raises(ValueError, match=re.escape("or one a sample and channel, (2, 8): got (3, 8) for 8 channels")):
        norm_act(x, "evonorm-s1", torch.ones(3, 8), groups=4)
    with pytest.raises(ValueError, match=re.escape("v must have one value a channel: got (2, 8) for 8 channels")):
        norm_act(x, "evonorm-s0", v=torch.ones(2, 8), groups=4)


def test_repr_tells_the_features() -> None:
    layer = NormActivation(8, groups=4, conditional=5)
    assert layer.extra_repr() == "8, layer='evonorm-s0', groups=4, eps=1e-05, conditional=5"


def test_a_layer_pickled_whole_before_there_were_conditions() -> None:
    layer = NormActivation(8, groups=4)
    older = copy.deepcopy(layer)
    state = {key: value for key, value in older.__dict__.items() if key not in ("conditional", "to_weight", "to_bias")}
    older.__dict__.clear()
    older.__setstate__(state)
    x = noise(2, 8, 4, 4).float()
    assert torch.equal(older(x), layer(x))


def test_copies_and_checkpoints() -> None:
    layer = layer_of("evonorm-b0").eval()
    x, condition = noise(2, 8, 4, 4).float(), noise(2, FEATURES).float()
    again = NormActivation(8, "evonorm-b0", conditional=FEATURES).eval()
    again.load_state_dict(layer.state_dict())
    for other in (again, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x, condition), layer(x, condition))


@ROWS
@pytest.mark.parametrize("training", [True, False])
def test_compiled_whole(row: NormAct, training: bool) -> None:
    torch.compiler.reset()
    eager = layer_of(row.name, 64).train(training)
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend="aot_eager")
    results = []
    for layer in (eager, compiled):
        leaves = {"x": noise(2, 64, 4, 4).float().requires_grad_(), "c": noise(2, FEATURES).float().requires_grad_()}
        y = layer(leaves["x"], leaves["c"])
        if row.affine:
            results.append(gradients(y, leaves) | dict(enumerate(p.grad for p in layer.parameters())))
        else:
            results.append({"y": y.detach()})
    torch.testing.assert_close(results[0], results[1])


@ROWS
def test_exported(row: NormAct) -> None:
    torch.compiler.reset()
    layer = layer_of(row.name).eval()
    batch = torch.export.Dim("batch", min=1, max=64)

    def given(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return noise(count, 8, 4, 4).float(), noise(count, FEATURES).float()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # raised by torch inside its own exporter
        exported = torch.export.export(layer, given(4), dynamic_shapes=({0: batch}, {0: batch}))
    torch.testing.assert_close(exported.module()(*given(7)), layer(*given(7)))


class Block(nn.Module):
    """A batch norm to convert, with an activation, and a conditional layer."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)
        self.bn = nn.BatchNorm2d(8)
        self.norm = layer_of(layer)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return self.norm(self.bn(self.conv(x)).relu(), condition=condition)


@ROWS
def test_the_graph_is_the_model(row: NormAct) -> None:
    model = Block(row.name)
    graph = fx.symbolic_trace(copy.deepcopy(model))
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["conv", "bn", "norm"]
    x, condition = noise(2, 8, 4, 4).float(), noise(2, FEATURES).float()
    for training in (True, False):
        assert torch.equal(graph.train(training)(x, condition), model.train(training)(x, condition))


@ROWS
def test_a_layer_traced_by_itself(row: NormAct) -> None:
    layer = layer_of(row.name)
    x, condition = noise(2, 8, 4, 4).float(), noise(2, FEATURES).float()
    assert torch.equal(fx.symbolic_trace(copy.deepcopy(layer))(x, condition), layer(x, condition))


def test_the_converter_keeps_a_conditional_layer() -> None:
    model = Block("evonorm-s0")
    given = {"x": noise(2, 8, 4, 4).float(), "condition": noise(2, FEATURES).float()}
    for example in (None, given):
        plan = evonorm.plan(model, "evonorm-b0", example_inputs=example)
        assert [(site.name, site.what) for site in plan.sites if not site.replaced][-1] == (
            "norm",
            "kept: a NormActivation already",
        )
        converted = plan.apply()
        assert converted.bn.layer == "evonorm-b0"
        assert converted(**given).shape == (2, 8, 4, 4)


def test_statistics_over_replicas_and_over_a_loader() -> None:
    layer = evonorm.convert_sync(nn.Sequential(layer_of("bn-relu")))[0]
    assert layer.sync
    x, condition = noise(4, 8, 3, 3).float(), noise(4, FEATURES).float()
    evonorm.update_statistics([x], _With(layer, condition))
    torch.testing.assert_close(layer.running_mean, x.mean((0, 2, 3)))


class _With(nn.Module):
    def __init__(self, layer: nn.Module, condition: torch.Tensor) -> None:
        super().__init__()
        self.layer, self.condition = layer, condition

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, self.condition)


@pytest.mark.parametrize("name", ["bn-relu", "evonorm-b0"])
def test_the_replicas_path_is_the_formula(name: str) -> None:
    """Over several processes torch's own batch norm gives way to the reference, which must know the condition too."""
    row = get(name)
    x, w, b = noise(3, 6, 4, 4), noise(3, 6, seed=4), noise(3, 6, seed=5)
    own = {n: noise(6, seed=30) for n in row.parameters}
    setting = Setting(eps=row.eps, conditional=True)
    found = reference.evaluate(row, x, {"weight": w, "bias": b, **own}, setting)
    torch.testing.assert_close(found, norm_act(x, name, w, b, **own, training=True))


@pytest.mark.own_device
@KERNELS
@pytest.mark.parametrize("row", [get(name) for name in ROWS_WITH_KERNELS], ids=lambda row: row.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_against_float64(row, shape, dtype, channels_last, training, nan_filled_memory) -> None:
    """By the yardstick of all kernels, in y and every gradient; those of weight and bias are (N, C)."""
    if training and not trains(row, shape):
        pytest.skip("one value a channel, which has no variance")
    _, x, dy, p = case(row, shape, dtype, channels_last)
    p |= {name: noise(*shape[:2], seed=seed).float() for seed, name in ((30, "weight"), (31, "bias"))}
    c = shape[1]
    given = {"running_mean": noise(c, seed=4).float(), "running_var": noise(c, seed=5).abs().float() + 0.1}
    running = None if training else {name: value for name, value in given.items() if name in row.running}
    check(row, x, dy, p, running=running)


@pytest.mark.own_device
@KERNELS
@pytest.mark.parametrize("row", [get(name) for name in ROWS_WITH_KERNELS], ids=lambda row: row.name)
@pytest.mark.parametrize("own", ["weight", "bias"])
def test_kernels_with_one_of_both_of_each_sample(row, own: str, nan_filled_memory) -> None:
    _, x, dy, p = case(row, (3, 6, 5, 5), torch.float32, True)
    p[own] = noise(3, 6, seed=30).float()
    check(row, x, dy, p)
    del p["bias" if own == "weight" else "weight"]
    check(row, x, dy, p)


@pytest.mark.own_device
@KERNELS
@pytest.mark.parametrize("row", [get(name) for name in ROWS_WITH_KERNELS], ids=lambda row: row.name)
def test_kernels_second_derivative(row) -> None:
    _, x, dy, p = case(row, (2, 6, 3, 3), torch.float32, False)
    p |= {name: noise(2, 6, seed=seed).float() for seed, name in ((30, "weight"), (31, "bias"))}
    found = {}
    for backend in ("kernel", "reference"):
        leaves = [x.clone().requires_grad_(), *(value.clone().requires_grad_() for value in p.values())]
        given = dict(zip(p, leaves[1:], strict=True))
        y = norm_act(leaves[0], row.name, **given, training=True, groups=3, backend=backend)
        first = torch.autograd.grad(y, leaves, dy, create_graph=True)
        squares = sum(g.square().sum() for g in first)
        found[backend] = torch.autograd.grad(squares, leaves, allow_unused=True, materialize_grads=True)
    for one, other in zip(found["kernel"], found["reference"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
