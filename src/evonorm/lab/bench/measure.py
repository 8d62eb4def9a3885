"""One case: the gate, then memory, then time, of every implementation in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from evonorm.lab.bench import gate, implementations, memory, timing
from evonorm.lab.bench.cases import Case
from evonorm.lab.bench.devices import Device, Work
from evonorm.lab.bench.implementations import COPY, Implementation, Unavailable
from evonorm.lab.bench.options import Figure
from evonorm.lab.bench.results import Result, must_move
from evonorm.layers import table
from evonorm.layers.kernels import triton
from evonorm.layers.modules import NormActivation


def measure(
    case: Case,
    contenders: list[Implementation],
    *,
    device: Device,
    groups: int,
    repeats: int,
    into: list[Result],
    tick: Callable[[float], None],
) -> None:
    """Adds to `into` a result for each figure and implementation; after KeyboardInterrupt, of those measured so far."""
    torch.compiler.reset()  # torch compiles a function only so many times anew
    generator = torch.Generator(device.place).manual_seed(0)
    x, dy = case.tensor(generator), case.tensor(generator)
    # The others hold the same values elsewhere in memory.
    sets = [(x, dy), *((x.clone(), dy.clone()) for _ in range(device.input_sets(x.nbytes) - 1))]
    modules: dict[str, nn.Module] = {}
    for number, figure in enumerate(case.figures):
        results: dict[str, Result] = {}
        works: dict[str, Work] = {}
        with collected(results, into) as samples:
            for contender in contenders:
                result = _result(case, figure, contender, len(sets), x)
                results[contender.name] = result
                module = _built(contender, case, groups, modules, device, result)
                if module is not None and _ready(module, contender, case, figure, (x, dy), device, result):
                    works[contender.name] = timing.layer_work(figure, module, sets)
            results[COPY] = _result(case, figure, Implementation(COPY, None, "torch", nn.Identity), len(sets), x)
            works[COPY] = timing.copy_work([x for x, _ in sets])
            share = part_of(tick, number, len(case.figures))
            timing.in_turn(works, samples, repeats=repeats, device=device, tick=share)


@contextmanager
def collected(results: Mapping[str, Result], into: list[Result]) -> Iterator[dict[str, timing.Samples]]:
    """Samples by implementation, to be filled: at the end, or where it is interrupted, they are results in `into`."""
    samples: dict[str, timing.Samples] = {}
    try:
        yield samples
    finally:
        for name, sampled in samples.items():
            results[name].seconds, results[name].host_seconds = sampled.seconds, sampled.host
            results[name].calls = sampled.calls
        into += [result for result in results.values() if result.seconds or result.status != "measured"]


def part_of(tick: Callable[[float], None], number: int, count: int) -> Callable[[float], None]:
    """Tells the share of part `number` of `count` as one of the whole."""
    return lambda share: tick((number + share) / count)


def gated(
    module: nn.Module, contender: Implementation, case: Case, device: Device, *, training: bool, result: Result
) -> bool:
    """Whether `module` may show its speed in this case; if not, `result` says why."""
    if not contender.gated:
        return True
    try:
        verdict = gate.check(module, case, device.place, training=training)
    except Exception as error:
        _failed(result, error)
        return False
    result.gate = verdict.as_row()
    if not verdict.ok:
        result.status, result.reason = "red", str(verdict)
    return verdict.ok


def _built(
    contender: Implementation,
    case: Case,
    groups: int,
    modules: dict[str, nn.Module],
    device: Device,
    result: Result,
) -> nn.Module | None:
    channels = case.shape[1]
    try:
        if contender.name not in modules:
            module = contender.build(channels, implementations.fitting_groups(channels, groups))
            gate.randomize(module)
            modules[contender.name] = module.to(device.place)
    except Unavailable as error:
        result.status, result.reason = "skipped", str(error)
        return None
    return modules[contender.name]


def _ready(
    module: nn.Module,
    contender: Implementation,
    case: Case,
    figure: Figure,
    pair: tuple[Tensor, Tensor],
    device: Device,
    result: Result,
) -> bool:
    """A first call, timed; the gate; then memory of one call. False, and `result` says why, where one of them fails."""
    x = pair[0]
    work = timing.layer_work(figure, module, [pair])
    try:
        started = time.perf_counter()
        work()
        device.finish()
        result.first_call_seconds = time.perf_counter() - started
        training = figure != "inference"
        if not gated(module, contender, case, device, training=training, result=result):
            return False
        module.train(training)
        if training:
            _tell_saved(result, module, x)
        result.peak_bytes = device.peak_growth(work)
        if contender.variant == "kernel" and device.fused == "triton":
            result.plan = _plan(module, case, x, training=training)
    except Exception as error:
        _failed(result, error)
        return False
    return True


def _tell_saved(result: Result, module: nn.Module, x: Tensor) -> None:
    held = [*module.parameters(), *module.buffers()]
    forward = partial(module, x.detach().requires_grad_())
    try:
        saved = memory.saved_for_backward(forward, elements=x.numel(), parameters=held)
    except torch._dynamo.exc.TorchDynamoException:
        return  # torch 2.11 cannot compile some modules while what they save is looked at
    result.saved_tensors, result.saved_bytes = saved.full_size_tensors, saved.bytes


def _plan(module: nn.Module, case: Case, x: Tensor, *, training: bool) -> dict[str, str]:
    assert isinstance(module, NormActivation), "ours alone are fused"
    row = table.get(module.layer).kernel
    return triton.chosen(row, x, case.format == "channels_last", module.groups, training=training)


def _failed(result: Result, error: Exception) -> None:
    """A layer that says why it cannot serve, a rival or a compiler that fails: skipped. Ours that crashes: red."""
    refused = isinstance(error, (ValueError, NotImplementedError, torch.OutOfMemoryError))
    ours = result.variant in ("kernel", "reference")
    result.status = "red" if ours and not refused else "skipped"
    text = (str(error) or type(error).__name__).splitlines()[0]
    result.reason = text if refused else f"{type(error).__name__}: {text}"


def _result(case: Case, figure: Figure, contender: Implementation, sets: int, x: Tensor) -> Result:
    return Result(
        str(case),
        figure,
        contender.name,
        contender.layer,
        contender.variant,
        images=case.shape[0],
        must_move=must_move(figure, over_batch=contender.over_batch),
        input_sets=sets,
        x_bytes=x.nbytes,
        details={"shape": case.shape, "dtype": case.dtype, "format": case.format},
    )
