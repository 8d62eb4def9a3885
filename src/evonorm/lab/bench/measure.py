"""One case: the gate, then memory, then time, of every implementation in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from evonorm.lab.bench import gate, implementations, memory, timing
from evonorm.lab.bench.cases import Case
from evonorm.lab.bench.implementations import COPY, Implementation, Unavailable
from evonorm.lab.bench.options import Figure
from evonorm.lab.bench.results import Result


def measure(
    case: Case,
    contenders: list[Implementation],
    *,
    groups: int,
    repeats: int,
    into: list[Result],
    tick: Callable[[float], None],
) -> None:
    """Adds to `into` a result for each figure and implementation; after KeyboardInterrupt, of those measured so far."""
    torch.compiler.reset()  # torch compiles a function only so many times anew
    generator = torch.Generator().manual_seed(0)
    x, dy = case.tensor(generator), case.tensor(generator)
    modules: dict[str, nn.Module] = {}
    for number, figure in enumerate(case.figures):
        results: dict[str, Result] = {}
        works: dict[str, timing.Work] = {}
        with collected(results, into) as samples:
            for contender in contenders:
                result = _result(case, figure, contender.name, contender.layer, contender.variant)
                results[contender.name] = result
                module = _prepared(contender, case, figure, groups, modules, result)
                if module is not None:
                    works[contender.name] = timing.layer_work(figure, module, x, dy)
                    _remember(result, works[contender.name], module, x, figure)
                    if result.status != "measured":
                        del works[contender.name]
            results[COPY] = _result(case, figure, COPY, None, "torch")
            works[COPY] = timing.copy_work(x)
            share = part_of(tick, number, len(case.figures))
            timing.in_turn(works, samples, repeats=repeats, tick=share)


@contextmanager
def collected(results: Mapping[str, Result], into: list[Result]) -> Iterator[dict[str, timing.Samples]]:
    """Samples by implementation, to be filled: at the end, or where it is interrupted, they are results in `into`."""
    samples: dict[str, timing.Samples] = {}
    try:
        yield samples
    finally:
        for name, sampled in samples.items():
            results[name].seconds, results[name].calls = sampled.seconds, sampled.calls
        into += [result for result in results.values() if result.seconds or result.status != "measured"]


def part_of(tick: Callable[[float], None], number: int, count: int) -> Callable[[float], None]:
    """Tells the share of part `number` of `count` as one of the whole."""
    return lambda share: tick((number + share) / count)


def gated(module: nn.Module, contender: Implementation, case: Case, *, training: bool, result: Result) -> bool:
    """Whether `module` may show its speed in this case; if not, `result` says why."""
    if not contender.gated:
        return True
    try:
        verdict = gate.check(module, case, training=training)
    except Exception as error:
        _failed(result, error)
        return False
    result.gate = verdict.as_row()
    if not verdict.ok:
        result.status, result.reason = "red", str(verdict)
    return verdict.ok


def _prepared(
    contender: Implementation,
    case: Case,
    figure: Figure,
    groups: int,
    modules: dict[str, nn.Module],
    result: Result,
) -> nn.Module | None:
    channels = case.shape[1]
    try:
        if contender.name not in modules:
            modules[contender.name] = contender.build(channels, implementations.fitting_groups(channels, groups))
            gate.randomize(modules[contender.name])
    except Unavailable as error:
        result.status, result.reason = "skipped", str(error)
        return None
    module = modules[contender.name]
    return module if gated(module, contender, case, training=figure != "inference", result=result) else None


def _remember(result: Result, work: timing.Work, module: nn.Module, x: Tensor, figure: Figure) -> None:
    """Memory of one call, after one that is not looked at."""
    try:
        work()
    except Exception as error:
        _failed(result, error)
        return
    if figure != "inference":
        held = [*module.parameters(), *module.buffers()]
        forward = partial(module, x.detach().requires_grad_())
        saved = memory.saved_for_backward(forward, elements=x.numel(), parameters=held)
        result.saved_tensors, result.saved_bytes = saved.full_size_tensors, saved.bytes
    result.peak_bytes = memory.peak_growth(work)


def _failed(result: Result, error: Exception) -> None:
    """A layer that says why it cannot serve, a rival or a compiler that fails: skipped. Ours that crashes: red."""
    refused = isinstance(error, (ValueError, NotImplementedError))
    ours = result.variant in ("kernel", "reference")
    result.status = "red" if ours and not refused else "skipped"
    text = (str(error) or type(error).__name__).splitlines()[0]
    result.reason = text if refused else f"{type(error).__name__}: {text}"


def _result(case: Case, figure: Figure, name: str, layer: str | None, variant: str) -> Result:
    details = {"shape": case.shape, "dtype": case.dtype, "format": case.format}
    return Result(str(case), figure, name, layer, variant, images=case.shape[0], details=details)
