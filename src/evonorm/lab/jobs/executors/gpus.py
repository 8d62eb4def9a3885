"""The GPUs of this machine that torch can use, what is free of them, and which of them a further run goes to."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_ASK = ("nvidia-smi", "--query-gpu=index,uuid,memory.free,utilization.gpu", "--format=csv,noheader,nounits")
_ASK_SECONDS = 20.0
# A run that has begun, or follows another, needs this long to import torch, build its data and reach its pace.
SETTLING_SECONDS = 30.0
# How often a GPU is looked at after that, and how many looks make a judgement.
LOOK_SECONDS, LOOKS = 1.0, 5
# The next look where there is no room, or no answer; how long a look may take, since the runs' driver waits for it.
LATER_SECONDS, LOOK_LIMIT_SECONDS = 10.0, 2.0
# In per cent of the time. A GPU that computes so often gains nothing from one more process: they take turns on it.
BUSY = 90.0
# A further run must find room for what the largest share so far took, and this much more.
SPARE = 1.25
# What a run of the report's network at batch 128 may take, CUDA's own part included, before any has told: a guess.
FIRST_GB = 4.0


@dataclass(frozen=True)
class Gpu:
    """name: what CUDA_VISIBLE_DEVICES calls it, whatever else is visible. busy: per cent of the time; None: untold."""

    name: str
    free_gigabytes: float
    busy: float | None = None


def gpus() -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order; none where nvidia-smi or torch sees none."""
    there = _asked(_ASK_SECONDS)
    if not there:
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(there.values())
    by_name = there | {gpu.name: gpu for gpu in there.values()}
    return [by_name[name.strip()] for name in visible.split(",") if name.strip() in by_name]


def _asked(seconds: float) -> dict[str, Gpu]:
    """By index, as nvidia-smi tells; nothing where it does not within these seconds."""
    try:
        told = subprocess.run(_ASK, capture_output=True, text=True, check=True, timeout=seconds).stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in told.splitlines() if line.strip()]
        return {index: Gpu(name, float(free) / 1024, _number(busy)) for index, name, free, busy in rows}
    except (OSError, subprocess.SubprocessError, ValueError):  # ValueError: it says "[N/A]", or something else
        return {}


def _number(text: str) -> float | None:
    """None for "[N/A]", which a part of a card (MIG) says of how busy it is."""
    try:
        return float(text)
    except ValueError:
        return None


class Shared:
    """GPUs that a fixed number of runs share alike."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def changed(self, name: str) -> None:
        """A run on this GPU has begun or ended."""

    def place(self, runs: Mapping[str, int]) -> str | None:
        """Where a further run goes; None where it has to wait. runs: by name, those under way."""
        return self.fewest(runs)

    def fewest(self, runs: Mapping[str, int]) -> str:
        """The GPU with the fewest of these runs."""
        return min(self.names, key=lambda name: runs.get(name, 0))


class Measured(Shared):
    """GPUs that get one run each, then one more at a time while they are idle and have memory.

    A GPU with runs is looked at when for a while none has begun or ended on it. Where nvidia-smi does not tell how busy
    it is, memory alone decides; where it no longer answers, no run is added.
    """

    def __init__(
        self,
        there: Sequence[Gpu],
        asked: Callable[[], dict[str, Gpu]] = lambda: _asked(LOOK_LIMIT_SECONDS),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__([gpu.name for gpu in there])
        self._before = {gpu.name: gpu.free_gigabytes for gpu in there}
        self._largest = dict.fromkeys(self.names, 0.0)  # share of a run, so far
        self._asked, self._clock = asked, clock
        self._changed = dict.fromkeys(self.names, -math.inf)
        self._next_look = -math.inf
        self._looks: dict[str, deque[Gpu]] = {name: deque(maxlen=LOOKS) for name in self.names}

    def changed(self, name: str) -> None:
        """See Shared."""
        self._changed[name] = self._clock()
        self._looks[name].clear()

    def place(self, runs: Mapping[str, int]) -> str | None:
        """See Shared."""
        empty = [name for name in self.names if not runs.get(name, 0)]
        roomiest = max(empty, key=lambda name: self._before[name], default=None)
        if roomiest is not None and (len(empty) == len(self.names) or self._before[roomiest] >= FIRST_GB):
            return roomiest
        self._look(runs)
        room = [name for name in self.names if runs.get(name, 0) and self._has_room(name, runs[name])]
        return min(room, key=lambda name: runs[name], default=None)

    def _look(self, runs: Mapping[str, int]) -> None:
        now = self._clock()
        settled = {name for name in self.names if runs.get(name, 0) and now - self._changed[name] >= SETTLING_SECONDS}
        if not settled or now < self._next_look:
            return
        found = [gpu for gpu in self._asked().values() if gpu.name in settled]
        for gpu in found:
            self._looks[gpu.name].append(gpu)
            share = (self._before[gpu.name] - gpu.free_gigabytes) / runs[gpu.name]
            self._largest[gpu.name] = max(self._largest[gpu.name], share)
        full = all(len(self._looks[name]) == LOOKS and not self._has_room(name, runs[name]) for name in settled)
        self._next_look = now + (LATER_SECONDS if full or not found else LOOK_SECONDS)

    def _has_room(self, name: str, runs: int) -> bool:
        looks, largest = self._looks[name], self._largest[name]
        if len(looks) < LOOKS:
            return False
        busy = [look.busy for look in looks if look.busy is not None]
        idle = not busy or statistics.median(busy) < BUSY
        # Between two runs of a worker a GPU is idle and empty, but not for long.
        free = min(self._before[name] - largest * runs, *(look.free_gigabytes for look in looks))
        return idle and free >= SPARE * (largest or FIRST_GB)
