"""Trials of any program: `program` and `command` of the file with their macros, metrics from its printed JSON lines,
or from what it logs with W&B.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from evonorm.lab.errors import UserError
from evonorm.lab.jobs.job import Job, Outcome, Reporter
from evonorm.lab.jobs.logs import LOG, last_line
from evonorm.lab.sweep.macros import expand
from evonorm.lab.sweep.schema import DEFAULT_COMMAND, Sweep
from evonorm.lab.sweep.wandb_reports import OneSource, WandbReports

# Set for the program: its parameters as JSON, and its own folder.
PARAMETERS_VARIABLE, FOLDER_VARIABLE = "EVONORM_SWEEP_PARAMETERS", "EVONORM_SWEEP_FOLDER"
POLL_SECONDS = 0.2
TERMINATE_SECONDS = 5.0
_LONGEST_LINE = 1 << 20


class Program:
    """Runs the sweep's program once a trial, in the folder the sweep was started in.

    Every line it prints that is a JSON object is a report, and so is every wandb.log; all it prints is in the trial's
    log.txt. An exit code other than 0 is a failure. It is stopped with SIGTERM, after five seconds with SIGKILL, with
    all its process group.
    """

    resumes = False
    ships_folder = True

    def __init__(self, sweep: Sweep, beside: Path | None = None, *, wandb: str | None = None) -> None:
        """beside: the folder of the sweep's file, where a program is looked for too. wandb: the mode that W&B is to
        have in it, offline or online; default: WANDB_MODE where it is set, else offline.
        """
        self._wandb = wandb
        self._command = sweep.command or DEFAULT_COMMAND
        runs = "${program}" in self._command
        self._program = _found(sweep.program, beside) if runs else sweep.program
        if self._program is None and runs:
            raise UserError(
                "program: missing; the command needs it: name the script that trains, as in `program: train.py`"
            )
        if not sweep.command and self._program and not self._program.endswith(".py"):
            self._command = ("${env}", "${program}", "${args}")
        self._metric = sweep.metric.name if sweep.metric else None

    def describe(self) -> dict[str, Any]:
        """See Target."""
        return {"program": self._program, "command": list(self._command)}

    def place(self, parameters: dict[str, Any]) -> str | None:
        """See Target: each trial is alone."""
        return None

    def run(self, job: Job, reporter: Reporter) -> Outcome:
        """See Target."""
        job.folder.mkdir(parents=True, exist_ok=True)
        line = expand(self._command, self._program, job.parameters, job.folder / "args.json")
        wandb = WandbReports(job)
        environment = {
            "PYTHONUNBUFFERED": "1",
            **wandb.environment(os.environ, mode=self._wandb),
            PARAMETERS_VARIABLE: json.dumps(job.parameters),
            FOLDER_VARIABLE: str(job.folder.resolve()),
        }
        print("$", " ".join(line), flush=True)
        try:
            process = subprocess.Popen(
                line,
                stdout=subprocess.PIPE,
                stderr=None,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise UserError(f"cannot start {line[0]!r}: {error.strerror}") from None
        with _group_ends_with_us(process):
            stopped = self._follow(process, OneSource(reporter, self._metric), wandb)
        if stopped:
            return Outcome("stopped")
        if process.returncode:
            how = f"exit code {process.returncode}" if process.returncode > 0 else _signal_name(process.returncode)
            last = last_line(job.folder / LOG)
            return Outcome("failed", error=f"the program ended with {how}{f': {last}' if last else ''}")
        return Outcome("finished")

    def _follow(self, process: subprocess.Popen[bytes], reporter: OneSource, wandb: WandbReports) -> bool:
        """Passes the program's output on until it ends; whether it was stopped on the driver's wish."""
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        rest, stop_at, looked = b"", None, 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while True:
                if stop_at is None and reporter.stop_requested():
                    _signal_group(process, signal.SIGTERM)
                    stop_at = time.monotonic() + TERMINATE_SECONDS
                if stop_at is not None and time.monotonic() > stop_at:
                    _signal_group(process, signal.SIGKILL)
                if time.monotonic() - looked >= POLL_SECONDS:
                    looked = time.monotonic()
                    wandb.tell(reporter)
                if selector.select(POLL_SECONDS):
                    chunk = os.read(pipe, 1 << 16)
                    if not chunk:
                        break
                    os.write(1, chunk)
                    *lines, rest = (rest + chunk).split(b"\n")
                    rest = rest[-_LONGEST_LINE:]
                    for line in lines:
                        _report(line, reporter)
                elif process.poll() is not None:
                    break  # a child that it left behind keeps the pipe open
        _report(rest, reporter)
        process.wait()
        wandb.tell(reporter, ended=True)
        return stop_at is not None


def _found(program: str | None, beside: Path | None) -> str | None:
    """The program as the command names it, made absolute if it lies beside the sweep's file and not here."""
    if program is None or Path(program).exists() or shutil.which(program):
        return program
    if beside is not None and (beside / program).exists():
        return str((beside / program).resolve())
    raise UserError(f"program: there is no {program!r} here{' or beside the file' if beside else ''}")


def _report(line: bytes, reporter: OneSource) -> None:
    line = line.strip()
    if not line.startswith(b"{"):
        return
    try:
        metrics = json.loads(line)
    except ValueError:
        return
    if metrics:
        reporter.tell("printed", metrics)


@contextlib.contextmanager
def _group_ends_with_us(process: subprocess.Popen[bytes]) -> Any:
    """Whatever ends this worker on purpose ends the program's process group first."""

    def ended(number: int, frame: Any) -> None:
        _signal_group(process, signal.SIGKILL)
        os._exit(1)

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _signal_group(process, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _signal_name(returncode: int) -> str:
    return f"signal {signal.Signals(-returncode).name}"
