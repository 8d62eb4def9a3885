"""The GPUs of this machine that torch can use, what is free of them, and which of them a further run goes to."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_ASK = ("nvidia-smi", "--query-gpu=index,uuid,memory.free,utilization.gpu", "--format=csv,noheader,nounits")
_ASK_SECONDS = 20.0
# A run that has begun needs this long to import torch, build its data and reach its pace.
SETTLING_SECONDS = 30.0
# How often a GPU is looked at after that, and how many looks make a judgement.
LOOK_SECONDS, LOOKS = 1.0, 5
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
    there = _asked()
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


def _asked() -> dict[str, Gpu]:
    """By index, as nvidia-smi tells; nothing where it does not."""
    try:
        told = subprocess.run(_ASK, capture_output=True, text=True, check=True, timeout=_ASK_SECONDS).stdout
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

    def place(self, runs: Mapping[str, int]) -> str | None:
        """Where a further run goes; None where it has to wait. runs: by name, those under way."""
        return self.fewest(runs)

    def fewest(self, runs: Mapping[str, int]) -> str:
        """The GPU with the fewest of these runs."""
        return min(self.names, key=lambda name: runs.get(name, 0))


class Measured(Shared):
    """GPUs that get one run each, then one more at a time while they are idle and have memory.

    A GPU with runs is looked at once its newest has settled. Where nvidia-smi does not tell how busy it is, memory
    alone decides; where it no longer answers, no run is added.
    """

    def __init__(
        self,
        there: Sequence[Gpu],
        asked: Callable[[], dict[str, Gpu]] = _asked,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__([gpu.name for gpu in there])
        self._before = {gpu.name: gpu.free_gigabytes for gpu in there}
        self._asked, self._clock = asked, clock
        self._runs: Counter[str] = Counter()
        self._changed = dict.fromkeys(self.names, -SETTLING_SECONDS)
        self._looked = -LOOK_SECONDS
        self._looks: dict[str, deque[Gpu]] = {name: deque(maxlen=LOOKS) for name in self.names}

    def place(self, runs: Mapping[str, int]) -> str | None:
        """See Shared."""
        now = self._clock()
        for name in self.names:
            if runs.get(name, 0) != self._runs[name]:
                self._runs[name], self._changed[name] = runs.get(name, 0), now
                self._looks[name].clear()
        self._look(now)
        room = [name for name in self.names if self._has_room(name)]
        return min(room, key=lambda name: self._runs[name]) if room else None

    def _look(self, now: float) -> None:
        settled = {name for name in self.names if self._runs[name] and now - self._changed[name] >= SETTLING_SECONDS}
        if not settled or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for gpu in self._asked().values():
            if gpu.name in settled:
                self._looks[gpu.name].append(gpu)

    def _has_room(self, name: str) -> bool:
        runs, looks = self._runs[name], self._looks[name]
        if not runs:
            return not sum(self._runs.values()) or self._before[name] >= FIRST_GB
        if len(looks) < LOOKS:
            return False
        free = min(look.free_gigabytes for look in looks)
        each = max(self._before[name] - free, 0.0) / runs
        busy = [look.busy for look in looks if look.busy is not None]
        idle = not busy or statistics.median(busy) < BUSY
        return idle and free >= SPARE * (each or FIRST_GB)
