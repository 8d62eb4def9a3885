"""Eager calls go past torch's dispatcher where nothing watches: the same bits; who watches sees the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import checkpoint as checkpoints
from torch.utils._python_dispatch import TorchDispatchMode

import evonorm
from evonorm.layers import kernels
from evonorm.layers.kernels import operators
from tests.layers.conftest import DEVICE

pytestmark = pytest.mark.skipif(
    not (kernels.available() or DEVICE.startswith("cuda")), reason=f"no kernels: {kernels.reason()}"
)
LAYERS = ("evonorm-s0", "evonorm-b0", "frn-tlu", "bn-relu", "gn-silu")
SEEN = [torch.ops.evonorm.forward.default, torch.ops.evonorm.backward.default]


class Watched(TorchDispatchMode):
    """Notes what the dispatcher sees of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.ours: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "evonorm":
            self.ours.append(func)
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def x(request: pytest.FixtureRequest) -> Tensor:
    values = torch.randn(3, 16, 5, 5, generator=torch.Generator(DEVICE).manual_seed(0), device=DEVICE)
    return values.to(request.param).to(memory_format=torch.channels_last).requires_grad_()


def taken(layer: evonorm.NormActivation, x: Tensor, *, twice: bool, watched: bool) -> Iterator[Tensor]:
    """y, gradients, running statistics; second derivatives too."""
    layer.zero_grad()
    y = layer(x)
    assert (type(y.grad_fn).__name__ == "_DirectBackward") is not watched
    inputs = [x, *layer.parameters()]
    first = torch.autograd.grad(y.float().square().sum(), inputs, create_graph=twice)
    yield from (y, *first, *layer.buffers())
    if twice:
        yield from torch.autograd.grad(sum(g.float().square().sum() for g in first), inputs, allow_unused=True)


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_same_bits_with_and_without_the_dispatcher(name: str, training: bool, twice: bool, x: Tensor) -> None:
    found = []
    for watched in (Watched(), None):
        layer = evonorm.NormActivation(16, name, groups=4, device=DEVICE).train(training)
        with watched or nullcontext():
            found.append(list(taken(layer, x, twice=twice, watched=watched is not None)))
        if watched:
            assert watched.ours[:2] == SEEN
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:  # of second derivatives several are summed, in an order of autograd's own
            rounding = 1e-6 * one.abs().max().item() if twice else 0.0
            torch.testing.assert_close(other, one, rtol=0, atol=rounding)


def test_a_backward_that_is_watched_alone_is_the_operators(x: Tensor) -> None:
    y = evonorm.NormActivation(16, groups=4, device=DEVICE)(x)
    with Watched() as watched:
        y.sum().backward()
    assert watched.ours == SEEN[1:]


class Special(Tensor):
    """A kind of tensor that changes nothing."""

    __torch_function__ = torch._C._disabled_torch_function_impl


def _dual(x: Tensor) -> AbstractContextManager[Any]:
    return forward_ad.dual_level()


@pytest.mark.parametrize(
    ("around", "special"),
    [(lambda x: nullcontext(), False), (lambda x: Watched(), True), (_dual, True)],
    ids=["nothing", "a mode", "forward-mode derivatives"],
)
def test_who_must_see_the_operator(around: Callable[[Tensor], Any], special: bool, x: Tensor) -> None:
    with around(x):
        assert operators.unwatched(x, torch.nn.Parameter(x.detach()), None) is not special
    assert not operators.unwatched(x.detach().as_subclass(Special))


def test_a_profile_names_the_operators(x: Tensor) -> None:
    layer = evonorm.NormActivation(16, groups=4, device=DEVICE)
    with torch.profiler.profile() as profile:
        layer(x).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert {"evonorm::forward", "evonorm::backward"} <= names


@pytest.mark.parametrize("name", LAYERS)
def test_without_gradients_nothing_is_kept(name: str, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = evonorm.NormActivation(16, name, groups=4, device=DEVICE)
    kept, computed = [], operators._computed

    def noted(call: Any, *, keeps: bool) -> Any:
        found = computed(call, keeps=keeps)
        kept.append(found[1] is not None)
        return found

    monkeypatch.setattr(operators, "_computed", noted)
    with torch.no_grad():
        y = layer(x)
    frozen = layer.requires_grad_(False)(x.detach())
    assert kept == [False, False]
    assert not y.requires_grad
    assert not frozen.requires_grad
    layer(x)
    assert kept[2] is operators.of_sample(kernels.ROWS.index(layer.layer))
    torch.testing.assert_close(frozen, y, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch goes over the batch one by one
@pytest.mark.parametrize("name", ["evonorm-s0", "evonorm-b0", "bn-relu"])
def test_a_batch_of_cotangents(name: str, x: Tensor) -> None:
    """Both kinds of vmap go over an eager graph with tensors that have no memory of their own."""
    layer = evonorm.NormActivation(16, name, groups=4, device=DEVICE)
    y = layer(x)
    cotangents = torch.randn(3, *y.shape, device=DEVICE).to(y.dtype)
    one_by_one = torch.stack([torch.autograd.grad(y, x, c, retain_graph=True)[0] for c in cotangents])
    (legacy,) = torch.autograd.grad(y, x, cotangents, is_grads_batched=True, retain_graph=True)
    mapped = torch.func.vmap(lambda c: torch.autograd.grad(y, x, c, retain_graph=True)[0])(cotangents)
    for found in (legacy, mapped):
        torch.testing.assert_close(found, one_by_one, rtol=0, atol=0)


def test_a_sign_that_is_told_beside_the_values(x: Tensor) -> None:
    layer = evonorm.NormActivation(16, groups=4, device=DEVICE)
    negated = torch._neg_view(x.detach())
    torch.testing.assert_close(layer(negated), layer(-x.detach()), rtol=0, atol=0)
    gradients = [torch.autograd.grad(layer(x), x, dy)[0] for dy in (negated, -x.detach())]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_a_checkpoint_whose_backward_is_watched(name: str, x: Tensor) -> None:
    """It runs forward once more, as the operator, and holds what that keeps to what the eager call kept."""
    layer = evonorm.NormActivation(16, name, groups=4, device=DEVICE)
    y = checkpoints.checkpoint(layer, x, use_reentrant=False)
    with Watched() as watched:
        (found,) = torch.autograd.grad(y.float().sum(), x)
    assert set(SEEN) <= set(watched.ours)
    (plain,) = torch.autograd.grad(layer(x).float().sum(), x)
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


def test_compiled_autograd_sees_one_graph(x: Tensor) -> None:
    layer = evonorm.NormActivation(16, groups=4, device=DEVICE)
    (plain,) = torch.autograd.grad(layer(x).float().sum(), x)
    torch.compiler.reset()
    loss = layer(x).float().sum()
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
        loss.backward()
    torch.testing.assert_close(x.grad, plain, rtol=0, atol=0)
