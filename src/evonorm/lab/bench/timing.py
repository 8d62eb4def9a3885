"""Implementations in turn, A B C A B C, so that a busy minute of the machine meets them all alike."""

from __future__ import annotations

import gc
import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from evonorm.lab.bench.devices import Device, Timing, Work
from evonorm.lab.bench.options import Figure

SAMPLE_SECONDS = 2e-3  # a shorter call is repeated within a sample, for the clock's sake


@dataclass
class Samples:
    """Seconds a call, one for each round; each is the mean of so many calls in a row, after one that is not timed.

    host: the same of the processor that hands the work over; empty where it does the work itself.
    """

    seconds: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    calls: int = 1


def in_turn(
    works: Mapping[str, Work],
    into: dict[str, Samples],
    *,
    repeats: int,
    device: Device,
    tick: Callable[[float], None] = lambda share: None,
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
            first = _timed(work, 1, device)
            estimates[name] = _timed(work, _calls(first, device), device).seconds
            into[name] = Samples(calls=_calls(Timing(estimates[name]), device))
        whole = repeats * sum(estimates[name] * into[name].calls for name in works) or 1.0
        done = 0.0
        for _ in range(repeats):
            for name, work in works.items():
                timing = _timed(work, into[name].calls, device)
                into[name].seconds.append(timing.seconds)
                into[name].host += [] if timing.host is None else [timing.host]
                done += estimates[name] * into[name].calls
                tick(min(1.0, done / whole))
    finally:
        if collecting:
            gc.enable()


def layer_work(figure: Figure, module: nn.Module, sets: Sequence[tuple[Tensor, Tensor]]) -> Work:
    """One call of a layer, on the next of the pairs of x and dy.

    forward: training, with what backward needs; forward+backward: to x and every parameter. What comes out is kept
    while the other pairs have their turn, so that what is written is as little in the cache as what is read.
    """
    module.train(figure != "inference")
    turn = itertools.cycle([(x.detach().requires_grad_(figure != "inference"), dy) for x, dy in sets])
    kept: deque[object] = deque(maxlen=len(sets) - 1)
    parameters = list(module.parameters())

    def call() -> None:
        leaf, dy = next(turn)
        if figure == "inference":
            with torch.inference_mode():
                kept.append(module(leaf))
        elif figure == "forward":
            kept.append(module(leaf))
        else:
            kept.append(torch.autograd.grad(module(leaf), [leaf, *parameters], dy))

    return call


def copy_work(sources: Sequence[Tensor]) -> Work:
    """A copy of the next x into memory already there: one tensor read, one written."""
    turn = itertools.cycle([(torch.empty_like(x), x) for x in sources])

    def call() -> None:
        into, x = next(turn)
        into.copy_(x)

    return call


def _calls(timing: Timing, device: Device) -> int:
    return min(device.most_calls, max(1, math.ceil(SAMPLE_SECONDS / max(timing.seconds, 1e-9))))


def _timed(work: Work, calls: int, device: Device) -> Timing:
    if calls > 1:
        work()  # the first after another implementation finds cold caches, which a short call would feel
    return device.timed(work, calls)
