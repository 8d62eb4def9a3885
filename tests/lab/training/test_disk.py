"""Disks that take no more: a clear stop, nothing corrupted, and on it goes when there is room."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.stopping import locked
from evonorm.lab.sweep import journal, run
from evonorm.lab.training.training import train
from tests.lab.pictures import pictures
from tests.lab.sweep import toys
from tests.lab.training.test_training import CONFIG, curves

ROOT = Path(__file__).parents[3]
SWEEP = {
    "method": "random",
    "metric": {"name": "loss"},
    "parameters": {"x": {"min": 0.0, "max": 1.0}},
    "run_cap": 8,
}


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system cuts a write off there, as a disk does where it is full, and refuses the next."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", range(900, 1500, 53))  # cut off in every kind of line, and between lines
def test_a_sweep_stops_whole_and_goes_on(tmp_path: Path, size: int) -> None:
    with largest_file(size), pytest.raises(OSError, match=r"File too large: '.*trials\.jsonl'") as caught:
        run(SWEEP, toys.parabola, out=tmp_path, workers=0, show=False)
    assert caught.value.errno == errno.EFBIG
    file = tmp_path / "trials.jsonl"
    lines = file.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert size - 300 < file.stat().st_size <= size
    for line in lines:
        json.loads(line)
    ended = [trial for trial in journal.read_trials(tmp_path) if trial.ended]
    result = run(SWEEP, toys.parabola, out=tmp_path, workers=0, show=False)
    assert [trial.status for trial in result.trials] == ["finished"] * 8
    assert result.trials[: len(ended)] == ended


def test_a_run_stops_whole_and_goes_on(tmp_path: Path) -> None:
    """The checkpoint, 13 MB, finds no room."""
    config = replace(CONFIG, epochs=1, steps_per_epoch=1)
    with largest_file(5_000_000), pytest.raises(OSError, match=r"File too large: '.*checkpoint\.pt'"):
        train(config, pictures(), tmp_path / "full")
    (folder,) = (path.parent for path in tmp_path.glob("full/*/config.json"))
    assert run_files.read(folder).status == "failed"
    assert not list(folder.glob("*.part"))  # what there is no room for takes none
    assert train(config, pictures(), tmp_path / "full").status == "finished"
    whole = train(config, pictures(), tmp_path / "whole")
    assert curves(run_files.read(folder)) == curves(whole)


ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=24k small {disk}
sweep() {{ {python} -m evonorm sweep {file} --out {disk}/out --workers 1; }}
code=0; sweep > {disk}.said 2>&1 || code=$?
test $code -ne 0
grep -q "No space left on device.*make room and repeat the command" {disk}.said
mount -o remount,size=8m {disk}
sweep
cp -r {disk}/out {disk}.kept
"""


def test_a_real_full_disk(tmp_path: Path) -> None:
    """A disk in memory, in a namespace where this user may mount one."""
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    (tmp_path / "program.sh").write_text('#!/bin/sh\necho "{\\"loss\\": 1, \\"words\\": \\"$(printf %0999d 0)\\"}"\n')
    (tmp_path / "program.sh").chmod(0o755)
    file, disk = tmp_path / "s.yaml", tmp_path / "disk"
    file.write_text(
        f"program: {tmp_path}/program.sh\nmethod: grid\nmetric: {{name: loss}}\nrun_cap: 12\n"
        "parameters: {x: {min: 1, max: 12}}\n"
    )
    disk.mkdir()
    script = ON_A_SMALL_DISK.format(disk=disk, file=file, python=sys.executable)
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    said = Path(f"{disk}.said")
    assert done.returncode == 0, done.stdout + done.stderr + (said.read_text() if said.exists() else "")
    trials = journal.read_trials(Path(f"{disk}.kept"))
    assert [(trial.status, trial.parameters) for trial in trials] == [("finished", {"x": x}) for x in range(1, 13)]


def test_a_folder_that_cannot_be_written_in() -> None:
    # Even the superuser makes no file there, so this holds for every user.
    with (
        pytest.raises(UserError, match=r"cannot write in the folder /sys/kernel: .*; choose another --out"),
        locked(Path("/sys/kernel")),
    ):
        pass
