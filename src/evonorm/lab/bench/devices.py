"""What differs between devices: the clock, the peak of memory, how many inputs keep the cache from answering."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from evonorm.lab.bench import memory
from evonorm.lab.errors import UserError
from evonorm.layers.functional import Backend

Work = Callable[[], object]
# A kernel waits this long on the device while its sample is handed over, and longer where that takes longer.
AHEAD_SECONDS, MOST_AHEAD_SECONDS = 2e-3, 5e-2
CYCLES_A_SECOND = 2e9  # of about any GPU's clock: it decides how long is waited, not what is measured
MOST_SETS = 256  # a map so small is bound by launches, wherever it lies


@dataclass(frozen=True)
class Timing:
    """Seconds a call. host: of the processor, which hands the work over; None where it does the work itself."""

    seconds: float
    host: float | None = None


class Device(Protocol):
    """A device as the bench needs it. fused: the backend of our kernels there. most_calls: in a sample."""

    place: torch.device
    fused: Backend
    most_calls: int

    def timed(self, work: Work, calls: int) -> Timing:
        """So many calls in a row."""

    def finish(self) -> None:
        """Returns when all that was begun is done."""

    def peak_growth(self, work: Work) -> int:
        """Bytes allocated at most while `work` ran, above what was there before."""

    def input_sets(self, size: int) -> int:
        """How many inputs of `size` bytes are taken in turn."""


class Cpu:
    """The processor: the clock of the process, one input, as a network's layer finds what the one before it wrote."""

    place = torch.device("cpu")
    fused: Backend = "kernel"
    most_calls = 1000

    def timed(self, work: Work, calls: int) -> Timing:
        """By the clock of the process."""
        started = time.perf_counter()
        for _ in range(calls):
            work()
        return Timing((time.perf_counter() - started) / calls)

    def finish(self) -> None:
        """Nothing is ever under way."""

    def peak_growth(self, work: Work) -> int:
        """From the log of torch's allocator."""
        return memory.peak_growth(work)

    def input_sets(self, size: int) -> int:
        """One."""
        return 1


class Cuda:
    """A GPU: events on its stream, and as many inputs in turn as are in all twice its second-level cache."""

    fused: Backend = "triton"
    # All of their kernels must fit the queue of launches (about 1024), or the host could not be ahead.
    most_calls = 5

    def __init__(self, device: torch.device) -> None:
        self.place = device
        self._cache_bytes = int(torch.cuda.get_device_properties(device).L2_cache_size)
        self._ahead = AHEAD_SECONDS

    def timed(self, work: Work, calls: int) -> Timing:
        """Between two events, with all calls handed over before the first of them begins: no gap is the host's.

        Where the device had begun before, the sample is taken again, after a longer wait. A host that is never ahead is
        measured without any, gaps and all: its own time is then about the device's.
        """
        while True:
            timing, ahead = self._sample(work, calls, self._ahead)
            if ahead:
                return timing
            if self._ahead >= MOST_AHEAD_SECONDS:
                return self._sample(work, calls, 0.0)[0]
            self._ahead *= 2

    def _sample(self, work: Work, calls: int, wait: float) -> tuple[Timing, bool]:
        """The times, and whether the host was done before the device began, `wait` seconds later."""
        begin, end = _event(), _event()
        self.finish()
        if wait:
            torch.cuda._sleep(int(wait * CYCLES_A_SECOND))  # type: ignore[no-untyped-call]
        begin.record()
        started = time.perf_counter()
        for _ in range(calls):
            work()
        host = time.perf_counter() - started
        ahead = not begin.query()
        end.record()
        end.synchronize()
        return Timing(begin.elapsed_time(end) / 1e3 / calls, host / calls), ahead

    def finish(self) -> None:
        """Waits for the device."""
        torch.cuda.synchronize(self.place)

    def peak_growth(self, work: Work) -> int:
        """From the allocator's own count."""
        self.finish()
        torch.cuda.reset_peak_memory_stats(self.place)
        before = torch.cuda.memory_allocated(self.place)
        work()
        self.finish()
        return torch.cuda.max_memory_allocated(self.place) - before

    def input_sets(self, size: int) -> int:
        """Together twice the second-level cache, and one more."""
        return min(MOST_SETS, 1 + -(-2 * self._cache_bytes // size))


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def choose(name: str) -> Device:
    """The device of this name. Raises UserError for one that is not here."""
    if name == "cpu":
        return Cpu()
    if not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device here; take --device cpu, or a GPU and a torch for it")
    return Cuda(torch.device(name))
