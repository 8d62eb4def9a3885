"""Where the time of a training step goes: profile(config, dataset) runs the training loop itself and splits its steps.

Every event of torch's profiler belongs to one part, with the time that no event inside it takes; so the parts add up to
the step. Going forward, hooks on the modules say whose an event is; going backward, the autograd node's sequence number
names the forward operation that made the node.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, record_function

from evonorm.lab import machine
from evonorm.lab.data.sets import Dataset
from evonorm.lab.errors import UserError
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.loop import Diverged, Run
from evonorm.lab.training.progress import Silent, Watch
from evonorm.lab.training.stages import STAGE, STEP
from evonorm.lab.training.training import resolve
from evonorm.layers.modules import NormActivation

WARM_UP_STEPS = 3
STEPS = 10
# What a step is for; the rest of PARTS is what it costs beside that.
NETWORK = tuple(
    f"{kind}, {way}" for kind in ("convolution", "layers", "other network") for way in ("forward", "backward")
)
PARTS = (*NETWORK, "data", "augmentation", "gradient check", "optimizer", "rest")
MEANING = {
    "layers, forward": "normalization-activation",
    "other network, forward": "kept norms, sums, pooling, dropout, linear, loss, convolutions' casts",
    "other network, backward": "and sums of gradients where paths meet",
    "data": "choice of the batch, uint8 to float",
    "gradient check": "are all of them finite?",
    "rest": "Python, bookkeeping, waiting",
}
_MODULE = "evonorm module: "
_NODE = "autograd::engine::evaluate_function"
_CASTS = ("aten::to", "aten::_to_copy", "ToCopyBackward0")


@dataclass(frozen=True)
class Profile:
    """Where the time of training steps went.

    steps: milliseconds of each part (PARTS) of every profiled step; they add up to its wall time. step_ms: that wall
    time by a clock of its own. plain_step_ms: the same of the steps between them, run without profiler. conditions:
    config, dataset, environment.
    """

    steps: Sequence[Mapping[str, float]]
    step_ms: Sequence[float]
    plain_step_ms: Sequence[float]
    conditions: Mapping[str, Any]

    def parts(self) -> dict[str, float]:
        """Mean milliseconds of each part over the middle half of the profiled steps, by their length."""
        ordered = sorted(self.steps, key=lambda step: sum(step.values()))
        cut = len(ordered) // 4
        kept = ordered[cut : len(ordered) - cut]
        return {part: statistics.fmean(step[part] for step in kept) for part in PARTS}

    def as_json(self) -> dict[str, Any]:
        """Parts, their sum, every repeat, and the conditions they were measured under."""
        parts = self.parts()
        return {
            "parts_ms": parts,
            "step_ms": sum(parts.values()),
            "beside_network_share": _beside(parts) / sum(parts.values()),
            "plain_step_ms": statistics.median(self.plain_step_ms),
            "all_parts_ms": list(self.steps),
            "all_step_ms": list(self.step_ms),
            "all_plain_step_ms": list(self.plain_step_ms),
            "conditions": self.conditions,
        }

    def table(self) -> Table:
        """The parts as a person reads them."""
        parts = self.parts()
        total, config = sum(parts.values()), self.conditions["config"]
        table = Table("part", "ms a step", "%", "", title=f"a training step, {config['model']} with {config['layer']}")
        for column in table.columns[1:3]:
            column.justify = "right"
        for part, spent in parts.items():
            table.add_row(part, f"{spent:.2f}", f"{100 * spent / total:.1f}", MEANING.get(part, ""))
            if part == NETWORK[-1]:
                table.add_section()
        table.add_section()
        table.add_row("step", f"{total:.2f}", "100.0", f"mean of the middle half of {len(self.steps)}")
        return table

    def notes(self) -> str:
        """What the table does not say: the share beside the network, the steps without profiler, the conditions."""
        parts = self.parts()
        total, plain = sum(parts.values()), statistics.median(self.plain_step_ms)
        config, environment = self.conditions["config"], self.conditions["environment"]
        return (
            f"data, augmentation, gradient check, optimizer and rest: {_beside(parts):.2f} ms, "
            f"{100 * _beside(parts) / total:.1f} % of the step\n"
            f"without the profiler, in turn with it: {plain:.2f} ms, median of {len(self.plain_step_ms)}; "
            f"with it {100 * (total / plain - 1):+.1f} %, its own time and the machine's noise\n"
            f"{environment['processor']}, {environment['threads']} threads, {config['precision']}, "
            f"batch {config['batch_size']}, torch {environment['torch']}"
        )


def profile(config: TrainConfig, dataset: Dataset, *, steps: int = STEPS, watch: Watch | None = None) -> Profile:
    """Trains as configured for WARM_UP_STEPS, then `steps` steps without and `steps` with the profiler, in turn.

    Leaves no run folder. Raises UserError if `steps` is below 1, the device is no CPU, or the run diverges.
    """
    watch = watch or Silent()
    if steps < 1:
        raise UserError(f"a profile needs at least 1 step: got {steps}")
    resolved, device = resolve(config, watch)
    if device.type != "cpu":
        raise UserError(f"a profile splits steps computed by the CPU: got device={device}; use --device cpu")
    watch.say(f"{WARM_UP_STEPS} steps to warm up, then {steps} without and {steps} with the profiler, in turn")
    machine.keep_freed_memory()
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # else the profiler writes of its own start and end
    # Epochs enough for the steps; validation is no part of a step.
    epochs = WARM_UP_STEPS + 2 * steps
    brief = replace(resolved, epochs=epochs, validation_images=1, warmup_epochs=0.0, check_steps=1, capture=False)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        sampler = _Sampler(steps)
        run = Run(brief, dataset, Path(folder), device, sampler, stop=sampler.between)
        sampler.model = run.work.model
        try:
            run.go()
        except Diverged as fault:
            raise UserError(f"the run diverged during the profile: {fault}") from fault
        finally:
            sampler.end()
    conditions = {
        "config": asdict(replace(resolved, data=dataset.name, device=device.type)),
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint, "train_images": run.images},
        "parameters": sum(parameter.numel() for parameter in run.work.model.parameters()),
        "warm_up_steps": WARM_UP_STEPS,
        "environment": machine.environment(device),
    }
    return Profile([split(step) for step in sampler.profiled], sampler.profiled_ms, sampler.plain_ms, conditions)


class _Sampler(Silent):
    """Runs every second step after the warm-up under the profiler, and asks the loop to stop after the last."""

    model: nn.Module

    def __init__(self, steps: int) -> None:
        self.plain_ms: list[float] = []
        self.profiled_ms: list[float] = []
        self.profiled: list[Any] = []
        self._steps = steps
        self._number = -WARM_UP_STEPS
        self._profiler: torch.profiler.profile | None = None
        self._hooks = ExitStack()
        self._started = 0.0

    def between(self) -> bool:
        """Called by the loop before each step: whether to stop."""
        self.end()
        if self._number >= 2 * self._steps:
            return True
        if self._number >= 0 and self._number % 2:
            self._begin()
        self._started = time.perf_counter()
        return False

    def step(self, **_: Any) -> None:
        """See Watch: the step is done."""
        if self._number >= 0:
            taken = self.profiled_ms if self._profiler else self.plain_ms
            taken.append(1e3 * (time.perf_counter() - self._started))
        self._number += 1

    def end(self) -> None:
        """Takes the hooks off, and what a profiler at work has seen."""
        self._hooks.close()
        if self._profiler:
            self._profiler.stop()
            recorded: Any = self._profiler.events()  # type: ignore[no-untyped-call]
            self.profiled += [event for event in recorded if event.name == STEP]
            self._profiler = None

    def _begin(self) -> None:
        for module in self.model.modules():
            if kind := _kind(module):
                before, after = _marking(_MODULE + kind)
                self._hooks.callback(module.register_forward_pre_hook(before).remove)
                self._hooks.callback(module.register_forward_hook(after, always_call=True).remove)
        self._profiler = torch.profiler.profile(activities=[ProfilerActivity.CPU], acc_events=True)
        self._profiler.start()


def split(step: Any) -> dict[str, float]:
    """Milliseconds of each part of one step. step: the profiler's event of it, with the events inside."""
    spent = dict.fromkeys(PARTS, 0.0)
    _assign(step, "rest", {}, spent)
    return spent


def _assign(event: Any, part: str, kinds: dict[int, str], spent: dict[str, float]) -> None:
    """Adds the event's own time to its part, then goes inside; kinds: sequence number -> whose node it is."""
    children = sorted(event.cpu_children, key=lambda child: child.time_range.start)
    inside = sum(child.time_range.elapsed_us() for child in children)
    spent[part] += (event.time_range.elapsed_us() - inside) / 1e3
    for child in children:
        own = _part(child, event, part, kinds)
        if own.endswith(", forward") and child.sequence_nr >= 0:
            # Operations that make no node show the number of the next one: its maker comes last.
            kinds[child.sequence_nr] = own.removesuffix(", forward")
        _assign(child, own, kinds, spent)


def _part(event: Any, parent: Any, part: str, kinds: Mapping[int, str]) -> str:
    """The part of an event whose parent belongs to `part`."""
    name = event.name
    if name.startswith(STAGE):
        stage = name.removeprefix(STAGE)
        return stage if stage in PARTS else "rest"
    if name.startswith(_MODULE):
        return f"{name.removeprefix(_MODULE)}, forward"
    if parent.name == STAGE + "forward":
        return "other network, forward"
    if name.startswith(_NODE):
        kind = kinds.get(event.sequence_nr, "rest")
        return kind if kind == "rest" else f"{kind}, backward"
    if part.startswith("convolution"):
        # The casts of autocast, and the sum of gradients where two convolutions read one tensor.
        summed = name == "aten::add" and parent.name.startswith(_NODE)
        if name in _CASTS or summed:
            return part.replace("convolution", "other network")
    return part


def _kind(module: nn.Module) -> str | None:
    if isinstance(module, NormActivation):
        return "layers"
    return "convolution" if isinstance(module, nn.Conv2d) else None


def _marking(name: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """Hooks that mark a module's forward pass for the profiler."""
    opened: list[record_function] = []

    def before(module: nn.Module, inputs: Any) -> None:
        opened.append(record_function(name))
        opened[-1].__enter__()  # type: ignore[no-untyped-call]

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        opened.pop().__exit__(None, None, None)

    return before, after


def _beside(parts: Mapping[str, float]) -> float:
    return sum(spent for part, spent in parts.items() if part not in NETWORK)
