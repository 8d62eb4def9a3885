"""Whether a layer became slower between two checkouts: NormActivation, forward and backward, timed in turn.

`python -m benchmarks.checkouts OLD NEW`: a process for each checkout, whose kernels must be built, and one more of OLD,
whose ratio shows the noise. Prints medians of processor time, one thread. `python benchmarks/checkouts.py CASE` is such
a process: a line on its standard input is a request to time CASE once.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, cast

LAYERS = ("evonorm-s0", "evonorm-b0", "frn-tlu", "bn-relu")
SHAPES = {(128, 96, 32, 32): 1, (128, 512, 4, 4): 10, (2, 32, 4, 4): 300}  # and calls a measurement
ROUNDS = 15


def measured(old: Path, new: Path, case: str) -> dict[str, float]:
    """Seconds a call by what is measured."""
    workers = {}
    for name, checkout in (("old", old), ("new", new), ("old again", old)):
        environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
        workers[name] = subprocess.Popen(
            [sys.executable, __file__, case], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    found: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(ROUNDS):
        for name, worker in workers.items():
            requests, answers = cast(IO[str], worker.stdin), cast(IO[str], worker.stdout)
            print(file=requests, flush=True)
            found[name].append(float(answers.readline()))
    for worker in workers.values():
        worker.communicate()
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def answer(layer: str, dtype: str, shape: list[int], calls: int) -> None:
    """Times the case at every line of standard input."""
    # The finder of an editable installation would go before PYTHONPATH.
    sys.meta_path[:] = [finder for finder in sys.meta_path if isinstance(finder, type)]
    import torch

    from evonorm import NormActivation

    generator = torch.Generator().manual_seed(0)
    x, dy = (
        torch.randn(shape, generator=generator).to(getattr(torch, dtype)).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    x.requires_grad_()
    module = NormActivation(shape[1], layer, backend="kernel")
    inputs = [x, *module.parameters()]
    torch.autograd.grad(module(x), inputs, dy)
    for _ in sys.stdin:
        start = time.process_time()
        for _ in range(calls):
            torch.autograd.grad(module(x), inputs, dy)
        print((time.process_time() - start) / calls, flush=True)


def main(old: Path, new: Path) -> None:
    for (shape, calls), layer, dtype in itertools.product(SHAPES.items(), LAYERS, ("float32", "bfloat16")):
        times = measured(old, new, json.dumps([layer, dtype, shape, calls]))
        ratios = "  ".join(f"{name} / old {times[name] / times['old']:.3f}" for name in ("new", "old again"))
        print(f"{layer:10} {dtype:8} {shape!s:17} old {times['old'] * 1e3:8.3f} ms  {ratios}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        answer(*json.loads(sys.argv[1]))
    else:
        main(*(Path(checkout).resolve() for checkout in sys.argv[1:3]))
