"""Training functions that travel to worker processes."""

from __future__ import annotations

import errno
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evonorm.lab.sweep import log


def parabola(parameters: dict[str, Any]) -> dict[str, float]:
    return {"loss": (parameters["x"] - 0.3) ** 2}


def curve(parameters: dict[str, Any]) -> Iterator[dict[str, float]]:
    for step in range(1, 10):
        time.sleep(0.02)
        yield {"step": step, "loss": parameters["x"] + 1 / step}


def slow(parameters: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Long enough to be killed in the middle of."""
    for step in range(3):
        time.sleep(0.004)
        yield {"loss": parameters["x"] + step}


def endless(parameters: dict[str, Any]) -> Iterator[dict[str, float]]:
    while True:
        time.sleep(0.02)
        yield {"loss": parameters["x"]}


def troubled(parameters: dict[str, Any]) -> Any:
    """One of each kind of trouble."""
    kind = parameters["kind"]
    if kind == "raises":
        print("before the fall")
        raise RuntimeError("the roof fell in")
    if kind == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "diverges":
        return {"loss": math.nan}
    if kind == "silent":
        return {"accuracy": 1.0}
    if kind == "exits":
        sys.exit("enough")
    if kind == "no room":
        raise OSError(errno.ENOSPC, "No space left on device")
    log(loss=2.0, kind=kind)
    return None


def fails_once(parameters: dict[str, Any]) -> float:
    mark = Path(os.environ["EVONORM_TEST_STARTS"])
    if not mark.exists():
        mark.touch()
        raise OSError("the network was away")
    return 1.0


def threads(parameters: dict[str, Any]) -> float:
    return float(os.environ["OMP_NUM_THREADS"])
