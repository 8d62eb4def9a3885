"""What only a GPU can show, by one command that writes one file: tests on the device, then times.

`make gpu`, or `python -m benchmarks.gpu --out gpu.json [--only tests|train|bench ...] [--for 9m]` with src on the path.
A plain Python with torch, Triton, pytest, hypothesis, numpy, rich and Pillow will do. What is most likely wrong comes
first. The file is written every few seconds; steps that are in it already and are not taken again stay. `--device cpu`
rehearses all of it on the processor, at sizes that tell nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import outcomes, training
from evonorm.lab import machine
from evonorm.lab.bench import devices
from evonorm.lab.bench.options import BenchOptions
from evonorm.lab.errors import UserError
from evonorm.lab.stopping import seconds_of

ROOT = Path(__file__).parents[1]
FAILED, USER_ERROR, TIME_OVER = 1, 2, 130
# A step that could not even import torch in what is left is not begun.
LEAST_SECONDS, WRITTEN_EVERY_SECONDS, GRACE_SECONDS = 15.0, 5.0, 10.0
WORKERS = 8

OURS = ("evonorm-s0", "evonorm-b0", "frn-tlu", "bn-relu", "gn-silu")
# By part, then by step, in the order of what there is to learn: arguments of pytest, or what to measure.
TESTS: dict[str, tuple[str, ...]] = {
    "tests/triton": ("-m", "gpu", "tests/layers/test_triton.py", "tests/layers/test_triton_conditional.py"),
    "tests/kernels": ("-m", "gpu", "tests/layers/test_kernels.py", "tests/layers/test_mixed_dtypes.py"),
    "tests/layers": (
        *("-m", "gpu", "tests/layers", "--ignore=tests/layers/test_triton.py", "--ignore=tests/layers/test_kernels.py"),
        *(f"--ignore=tests/layers/test_{name}.py" for name in ("triton_conditional", "triton_large", "mixed_dtypes")),
    ),
    # One after the other: each of them takes a quarter of the GPU's memory.
    "tests/large": ("-m", "gpu", "tests/layers/test_triton_large.py"),
    "train/capture": ("tests/lab/training/test_capture.py",),
    "train/tests": ("tests/lab/training", "--ignore=tests/lab/training/test_capture.py"),
}
BENCHES = {
    "bench/headline": BenchOptions(device="cuda", shapes=((128, 96, 32, 32), (256, 256, 56, 56), (2, 256, 200, 304))),
    "bench/layers": BenchOptions(
        device="cuda",
        layers=OURS,
        implementations=("kernel", "batch_norm+relu"),
        compiled=False,
        presets=("headline", "resnet50-256", "detection"),
    ),
    "bench/inference": BenchOptions(
        device="cuda", presets=("inference",), figures=("forward+backward", "inference"), compiled=False
    ),
    "bench/shapes": BenchOptions(device="cuda", presets=("mini-inception", "resnet50"), compiled=False),
    "bench/resnet50": BenchOptions(device="cuda", presets=("resnet50-256",)),
    "bench/network": BenchOptions(device="cuda", network=True),
    "bench/fp32": BenchOptions(device="cuda", dtypes=("fp32",), compiled=False),
}
RUNS = {"train/speed": training.Plan()}
REHEARSED_RUNS = {"train/speed": training.REHEARSAL}
REHEARSED_TESTS = {
    "tests/layers": ("-m", "gpu", "tests/layers/test_hostile.py", "-k", "input_is_left_as_it_was"),
    "train/tests": ("tests/lab/training/test_schedules.py",),
}
REHEARSED_BENCHES = {
    "bench/headline": BenchOptions(
        shapes=((2, 32, 3, 3),), dtypes=("fp32",), implementations=("kernel", "batch_norm+relu"), repeats=1
    )
}
PARTS = ("tests", "train", "bench")
# What is most worth knowing in the first minutes, whatever comes after: whether it is right, then how fast.
ORDER = ("tests/triton", "bench/headline", "tests/kernels", "train/capture", "train/speed", "bench/layers")


def main(arguments: list[str] | None = None) -> int:
    """Takes the steps; the exit code: 0, 1 something failed, 2 no such device, 130 the time was over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip(), formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", default="gpu.json", type=Path, help="the file")
    parser.add_argument("--only", nargs="+", default=list(PARTS), help="tests, train, bench, or a step as tests/triton")
    parser.add_argument("--for", dest="time", metavar="TIME", help="stop after this time: 90s, 9m")
    parser.add_argument("--each", metavar="TIME", help="stop a step after this time, and go on with the next")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a rehearsal")
    parser.add_argument("--commit", help="what is measured, where there is no checkout to tell")
    options = parser.parse_args(arguments)
    try:
        end = time.monotonic() + (seconds_of(options.time) or math.inf)
        most = seconds_of(options.each) or math.inf
        device = devices.choose(options.device).place
        steps = _chosen(options.only, rehearsal=options.device == "cpu")
        if not options.out.absolute().parent.is_dir():
            raise UserError(f"--out {options.out}: there is no folder {options.out.parent}; make it, or name another")
    except UserError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return USER_ERROR
    environment = machine.environment(device)
    environment["commit"] = environment["commit"] or options.commit
    told = Told(options.out, environment | {"timm": machine.version_of("timm"), "numpy": machine.version_of("numpy")})
    codes = []
    for name in steps:
        if end - time.monotonic() < LEAST_SECONDS:
            print(f"== the time is over before {name}; --only takes it alone", flush=True)
            return TIME_OVER
        codes.append(_taken(name, told, min(end, time.monotonic() + most), options.device))
    return max(codes, default=0)


class Told:
    """The file of everything."""

    def __init__(self, path: Path, conditions: Mapping[str, Any]) -> None:
        self._path, self._conditions = path, dict(conditions)
        self._steps: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            self._steps = json.loads(path.read_text(encoding="utf-8"))["steps"]

    def tell(self, name: str, **found: object) -> None:
        """Writes a step as it stands."""
        self._steps[name] = {"conditions": self._conditions, **found}
        unfinished = self._path.with_name(f"{self._path.name}.part")
        unfinished.write_text(json.dumps({"steps": self._steps}, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self._path)


def _chosen(only: list[str], *, rehearsal: bool) -> list[str]:
    known = [
        *(REHEARSED_TESTS if rehearsal else TESTS),
        *(REHEARSED_RUNS if rehearsal else RUNS),
        *(REHEARSED_BENCHES if rehearsal else BENCHES),
    ]
    known.sort(key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    for name in only:
        if name not in (*PARTS, *known):
            raise UserError(f"--only {name}: there is no such part or step; there are {', '.join((*PARTS, *known))}")
    return [name for name in known if name in only or name.partition("/")[0] in only]


def _taken(name: str, told: Told, end: float, device: str) -> int:
    """Takes a step in a process of its own; the exit code."""
    print(f"== {name}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines"
        lines.touch()
        test = name in TESTS
        command = _pytest(name, device) if test else [sys.executable, "-c", _MEASURE, name, device, str(lines)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment |= {outcomes.PLACE: str(lines), "PYTHONPATH": path.rstrip(os.pathsep)}
        # In a rehearsal the processor by another name, so that tests are moved to it all the same.
        environment["EVONORM_TEST_DEVICE"] = "cuda" if device == "cuda" else "cpu:0"
        # The process leads a group, so that what it starts ends with it.
        process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)

        def tell(status: str) -> dict[str, Any]:
            text = lines.read_text(encoding="utf-8")
            read = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
            found = _counted(read) if test else {"rows": read}
            told.tell(name, status=status, seconds=round(time.monotonic() - started, 1), **found)
            return found

        try:
            while (code := _waited(process, min(WRITTEN_EVERY_SECONDS, max(0.0, end - time.monotonic())))) is None:
                tell("under way")
                if time.monotonic() >= end:
                    break
        finally:
            if process.poll() is None:
                _stop(process)
        found = tell("the time was over" if code is None else "finished" if code == 0 else f"exit code {code}")
    if test:
        print(f"== {name}: {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped", flush=True)
    if code is None:
        print(f"== {name}: the time was over", flush=True)
        return TIME_OVER
    return 0 if code == 0 else FAILED


def _pytest(name: str, device: str) -> list[str]:
    arguments = (TESTS if device == "cuda" else REHEARSED_TESTS)[name]
    command = [sys.executable, "-m", "pytest", "-p", "benchmarks.outcomes", "-p", "no:cacheprovider", "--tb=short"]
    command += ["--continue-on-collection-errors"]  # of files that need a package that is missing
    # On a bare machine pytest-xdist may be missing.
    if device == "cuda" and name != "tests/large" and importlib.util.find_spec("xdist"):
        command += ["-n", str(min(WORKERS, os.cpu_count() or 1)), "--dist", "worksteal"]
    return [*command, *arguments]


_MEASURE = "import sys; from benchmarks import gpu; sys.exit(gpu.measured(*sys.argv[1:]))"


def measured(name: str, device: str, rows: str) -> int:
    """A step of the bench, or runs, in this process; the exit code. rows: the file of its rows, a line each."""
    from evonorm.lab.bench.run import bench
    from evonorm.lab.bench.tables import make_console

    if name in RUNS:
        for found in training.rows((RUNS if device == "cuda" else REHEARSED_RUNS)[name]):
            Path(rows).write_text("".join(f"{json.dumps(row)}\n" for row in found), encoding="utf-8")
        return FAILED if any(row["trouble"] for row in found) else 0
    options = (BENCHES if device == "cuda" else REHEARSED_BENCHES)[name]
    outcome = bench(dataclasses.replace(options, verbose=True, json=Path(rows)), make_console())
    return TIME_OVER if outcome.interrupted else FAILED if outcome.red else 0


def _counted(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by outcome, each failure with its message, each reason to skip with its count, and seconds by file."""
    counts = Counter(line["outcome"] for line in lines)
    seconds: Counter[str] = Counter()
    for line in lines:
        seconds[line["test"].partition("::")[0]] += line["seconds"]
    return {
        **{outcome: counts[outcome] for outcome in ("passed", "failed", "skipped")},
        "failures": [
            {"test": line["test"], "message": line["message"]} for line in lines if line["outcome"] == "failed"
        ],
        "skips": dict(Counter(line["message"] for line in lines if line["outcome"] == "skipped")),
        "seconds_by_file": {file: round(value, 1) for file, value in seconds.items()},
    }


def _waited(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As by Ctrl-C, so that it tells what it has; then for good."""
    for request in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, request)
        if _waited(process, GRACE_SECONDS) is not None:
            return


if __name__ == "__main__":
    sys.exit(main())
