"""What a run does again and again on a GPU, as CUDA graphs: the host launches a training step with one call.

A function of tensors is run as it is when a shape first comes, which makes what it needs (handles, plans, the slots of
optimizers), recorded the second time, and replayed from then on. What changes from call to call has to be in the
tensors it is given; what it leaves, in tensors that stay where they are.

No GPU has run this yet: it is off unless asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from evonorm.lab.errors import UserError
from evonorm.lab.training import inputs
from evonorm.lab.training.tasks.image_work import ImageWork, Tensors
from evonorm.lab.training.tasks.work import Pass, Work

Function = Callable[[Tensors], Tensors]


class Graph(Protocol):
    """One recording on one kind of device."""

    def warm(self, run: Callable[[], Tensors]) -> Tensors:
        """What the function gives, run as it will be recorded."""

    def record(self, run: Callable[[], Tensors]) -> Tensors:
        """Records the function without computing anything: the tensors that each replay fills."""

    def replay(self) -> None:
        """Computes all that was recorded."""


class CudaGraph:
    """Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()

    def warm(self, run: Callable[[], Tensors]) -> Tensors:
        """See Graph. On the stream of the recording: what autograd keeps of it must not be another's."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            found = run()
        torch.cuda.current_stream().wait_stream(self._stream)
        return found

    def record(self, run: Callable[[], Tensors]) -> Tensors:
        """See Graph."""
        with torch.cuda.graph(self._graph, stream=self._stream):
            return run()

    def replay(self) -> None:
        """See Graph."""
        self._graph.replay()


GRAPHS: dict[str, Callable[[], Graph]] = {"cuda": CudaGraph}


class Recorded:
    """The function, recorded for each shape of what it is given. say: is told why something cannot be recorded."""

    def __init__(self, function: Function, device: torch.device, say: Callable[[str], None]) -> None:
        self._function, self._device, self._say = function, device, say
        self._calls: dict[Any, _Call] = {}

    def __call__(self, given: Tensors) -> Tensors:
        """What the function gives, in tensors of the caller's own."""
        shapes = tuple((name, value.shape) for name, value in given.items())
        if shapes not in self._calls:
            self._calls[shapes] = _Call(self._function, given, self._device)
        try:
            return self._calls[shapes](given)
        except _Unrecorded as why:
            self._say(f"a step cannot be captured, and is launched piece by piece: {why}")
            return self._calls[shapes](given)

    def forget(self) -> None:
        """Records anew: the tensors that the function changes are others now."""
        self._calls.clear()


class _Unrecorded(Exception):
    """Why the device or torch could not record the function."""


class _Call:
    """The function at one shape, given tensors that stay where they are."""

    def __init__(self, function: Function, given: Tensors, device: torch.device) -> None:
        self._device = device
        self._given = {name: torch.empty_like(value, device=device) for name, value in given.items()}
        self._run: Callable[[], Tensors] = lambda: function(self._given)
        self._graph: Graph | None = GRAPHS[device.type]()
        self._found: Tensors | None = None
        self._called = False

    def __call__(self, given: Tensors) -> Tensors:
        for name, value in given.items():
            self._given[name].copy_(inputs.pinned(value, self._device), non_blocking=True)
        if self._graph is None or not self._called:
            self._called = True
            return self._run() if self._graph is None else self._graph.warm(self._run)
        if self._found is None:
            try:
                self._found = self._graph.record(self._run)
            except RuntimeError as error:
                self._graph = None
                raise _Unrecorded(str(error).partition("\n")[0]) from None
        self._graph.replay()
        return {name: value.clone() for name, value in self._found.items()}


class Steps:
    """The training steps of work whose step is fixed: draws and learning rates from the host, the rest recorded.

    The work's validation is recorded with them, until it is let go. record: makes a function one that is recorded.
    """

    def __init__(self, work: ImageWork, record: Callable[[Function], Recorded]) -> None:
        self._work = work
        self._optimizer = next(iter(work.optimizers.values()))
        self._recorded = record(self._descend)
        vars(work)["sums_of"] = record(work.sums_of)

    def __call__(self, chosen: Tensor, step: int) -> Pass:
        """See Work.update; what is not finite is counted in work.faults, a tensor that stays where it is."""
        scales = torch.tensor(self._optimizer.scales(), dtype=torch.float32)
        given = {**self._work.given(chosen, step), "scales": scales}
        self._work.seed(step)
        found = dict(self._recorded(given))
        self._optimizer.count()
        return found.pop("loss"), found

    def forget(self) -> None:
        """See Recorded."""
        self._recorded.forget()

    def let_validation_go(self) -> None:
        """From now on it is launched piece by piece: a replay calls no hooks."""
        del vars(self._work)["sums_of"]

    def _descend(self, given: Tensors) -> Tensors:
        work, moves = self._work, _Scaled(self._optimizer, given["scales"])
        loss, sums = work.descend(work.model, moves, lambda model: work.pass_of(model, given))
        return {"loss": loss, **sums}


class _Scaled:
    """The optimizer, moving by scales that lie on the device."""

    def __init__(self, optimizer: Any, scales: Tensor) -> None:
        self._optimizer, self._scales = optimizer, scales

    def step(self) -> None:
        self._optimizer.apply(self._scales.unbind())


def check(work: Work, *, interval: int) -> None:
    """Raises UserError if the steps of this work cannot be captured. interval: steps between two looks."""
    device, task = work.device.type, work.config.task
    why = {
        f"device={device} has no graphs; it is for cuda": device not in GRAPHS,
        f"the steps of task {task} take more from the host than is known before": not _fixed(work),
        f"{work.group.size} processes meet in each step": work.group.size > 1,
        "check_steps=1 looks at each step; say 2 or more": interval == 1,
    }
    against = next((reason for reason, holds in why.items() if holds), None)
    if against is not None:
        raise UserError(f"capture=true cannot be: {against}; or leave capture out")


def steps(work: Any, say: Callable[[str], None], *, interval: int) -> Steps:
    """The training steps of this work, captured, and its validation with them; see check."""
    check(work, interval=interval)
    return Steps(work, lambda function: Recorded(function, work.device, say))


def _fixed(work: Work) -> bool:
    return isinstance(work, ImageWork) and work.fixed
