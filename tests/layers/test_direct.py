"""Eager calls go past torch's dispatcher where nothing watches: the same bits; who watches sees the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
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


def taken(layer: evonorm.NormActivation, x: Tensor, *, twice: bool) -> Iterator[Tensor]:
    """y, gradients, running statistics; second derivatives too."""
    layer.zero_grad()
    y = layer(x)
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
            found.append(list(taken(layer, x, twice=twice)))
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
def test_without_gradients_nothing_is_kept(name: str, x: Tensor) -> None:
    layer = evonorm.NormActivation(16, name, groups=4, device=DEVICE)
    with torch.no_grad():
        y = layer(x)
    frozen = layer.requires_grad_(False)(x.detach())
    assert not y.requires_grad
    assert not frozen.requires_grad
    torch.testing.assert_close(frozen, y, rtol=0, atol=0)
