"""Implementations in turn, A B C A B C, so that a busy minute of the machine meets them all alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from evonorm.lab.bench.options import Figure

Work = Callable[[], object]
SAMPLE_SECONDS = 2e-3  # a shorter call is repeated within a sample, for the clock's sake
MOST_CALLS = 1000


@dataclass
class Samples:
    """Seconds a call, one for each round; each is the mean of so many calls in a row, after one that is not timed."""

    seconds: list[float] = field(default_factory=list)
    calls: int = 1


def in_turn(
    works: Mapping[str, Work],
    into: dict[str, Samples],
    *,
    repeats: int,
    tick: Callable[[float], None] = lambda share: None,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Fills `into` round by round, so that what is measured outlives an interruption. tick: share done, 0 to 1.

    A first round warms up and finds how many calls make a sample; it is not kept.
    """
    estimates: dict[str, float] = {}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for name, work in works.items():
            work()
            first = _timed(work, 1, clock)
            estimates[name] = _timed(work, _calls(first), clock)
            into[name] = Samples(calls=_calls(estimates[name]))
        whole = repeats * sum(estimates[name] * into[name].calls for name in works) or 1.0
        done = 0.0
        for _ in range(repeats):
            for name, work in works.items():
                into[name].seconds.append(_timed(work, into[name].calls, clock))
                done += estimates[name] * into[name].calls
                tick(min(1.0, done / whole))
    finally:
        if collecting:
            gc.enable()


def layer_work(figure: Figure, module: nn.Module, x: Tensor, dy: Tensor) -> Work:
    """One call of a layer. forward: training, with what backward needs; forward+backward: to x and every parameter."""
    module.train(figure != "inference")
    if figure == "inference":

        def inference() -> None:
            with torch.inference_mode():
                module(x)

        return inference
    leaf = x.detach().requires_grad_()
    if figure == "forward":
        return lambda: module(leaf)
    inputs = [leaf, *module.parameters()]
    return lambda: torch.autograd.grad(module(leaf), inputs, dy)


def copy_work(x: Tensor) -> Work:
    """A copy of x into memory already there: one tensor read, one written."""
    into = torch.empty_like(x)
    return lambda: into.copy_(x)


def _calls(seconds: float) -> int:
    return min(MOST_CALLS, max(1, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-9))))


def _timed(work: Work, calls: int, clock: Callable[[], float]) -> float:
    if calls > 1:
        work()  # the first after another implementation finds cold caches, which a short call would feel
    started = clock()
    for _ in range(calls):
        work()
    return (clock() - started) / calls
