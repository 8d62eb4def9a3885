"""One training run: train(config, dataset, out) -> record. Resumes where it was stopped, to the last bit."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from evonorm.lab import machine
from evonorm.lab.data.sets import Dataset
from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.stopping import locked, stop_requests
from evonorm.lab.training import keeping, replicas, tasks
from evonorm.lab.training.config import TrainConfig, run_name
from evonorm.lab.training.loop import Diverged, Run
from evonorm.lab.training.progress import Silent, Watch
from evonorm.layers import kernels, table


def resolve(config: TrainConfig, watch: Watch | None = None) -> tuple[TrainConfig, torch.device]:
    """What really runs on this machine. Raises UserError for a model, layer, device or kernel that is not there."""
    task, processes = tasks.get(config.task), replicas.current().size
    if processes > 1 and not task.replicas:
        raise UserError(f"task {task.name} is trained in one process: got {processes}; start it without torchrun")
    work = task.work_class
    work.check(config)
    try:
        row = table.add_specified(config.layer, config.formula) if config.formula else table.get(config.layer)
        # An added row travels with the run: to other processes, and into its record.
        config = replace(config, model=work.known(config.model), formula=row.specification if row.added else None)
    except ValueError as error:
        raise UserError(str(error)) from None
    device = machine.choose_device(config.device)
    precision, why = machine.fast_precision(device)
    if watch is not None and config.precision == "auto":
        watch.say(f"precision {precision}: {why}")
    unserved = kernels.serves(row, device, config.backend)
    if config.backend in ("kernel", "triton") and unserved is not None:
        asked = f"backend={config.backend}"
        raise UserError(f"{asked} does not serve {row.name} here: {unserved}; use backend=auto or reference")
    fused = unserved is None and row.native is None
    resolved = config.resolved(
        precision=precision, grouped=row.grouped, eps=row.eps, backend="kernel" if fused else "reference"
    )
    return resolved, device


def check(config: TrainConfig, out: Path | None = None) -> None:
    """Raises UserError for what can be known to be wrong before there is data: names, the device, the place of runs."""
    config.check_used()
    resolve(config)
    if out is not None:
        check_place(out)


def check_place(out: Path) -> None:
    """Raises UserError if no runs can be made in `out`, or it cannot be made itself."""
    above = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not above.is_dir():
        raise UserError(f"cannot make runs in {out}: {above} is a file; choose another --out")
    if not os.access(above, os.W_OK):
        raise UserError(f"cannot make runs in {out}: {above} may not be written; choose another --out")


def name_of(config: TrainConfig, fingerprint: str) -> str:
    """The run's name, the same on every machine: `auto` means the kernel where one is written for the layer.

    Whether it was built, and for this device, is how a machine computes the run, not what the run is.
    """
    resolved = resolve(config)[0]
    if config.backend == "auto":
        resolved = replace(resolved, backend="kernel" if _kernel_by_choice(config) else "reference")
    return run_name(resolved, fingerprint)


def run_folder(config: TrainConfig, dataset: Dataset, out: Path) -> Path:
    """Where the run of this config on this data lies, or will.

    Where no kernel served, runs were once named by that: one that lies there is found.
    """
    folder = out / name_of(config, dataset.fingerprint)
    if config.backend == "auto" and _kernel_by_choice(config) and not folder.exists():
        older = out / run_name(replace(resolve(config)[0], backend="reference"), dataset.fingerprint)
        if (older / "config.json").exists() and _without_kernels(older):
            return older
    return folder


def _kernel_by_choice(config: TrainConfig) -> bool:
    row = table.get(config.layer)
    return kernels.written(row) and row.native is None


def _without_kernels(folder: Path) -> bool:
    """Whether the run in `folder` was made where `auto` meant plain torch, so that it need not have been asked for."""
    made = run_files.read(folder).environment
    return bool(made.get("kernels", "none") == "none" or made.get("device", "cpu") != "cpu")


def train(
    config: TrainConfig,
    dataset: Dataset,
    out: Path,
    *,
    watch: Watch | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> run_files.Record:
    """Trains, or goes on training, and returns the run's record; its folder below `out` is named by the config.

    A finished or diverged run is not run again. Ctrl-C and SIGTERM end it after the current step, with a checkpoint and
    status `stopped`; one that came too late to stop this run is raised as KeyboardInterrupt when it has ended, so that
    it stops what would follow. `stop`, asked before each step, ends it likewise, and raises nothing if it comes too
    late. A run that is stopped before it has begun leaves nothing, and raises KeyboardInterrupt. An error is recorded
    as status `failed` and raised.

    Where torch.distributed is initialized, its processes train this run together (see replicas); each calls this, and
    gets the record. One that dies ends the others, with a checkpoint if the first is among them.
    """
    group = replicas.current()
    watch = watch if watch is not None and group.first else Silent()
    resolved, device = resolve(config, watch)
    device = group.device(device)
    folder = group.share(lambda: run_folder(config, dataset, out))
    _say_subsets(resolved, dataset, watch)
    with group.hold(_made_and_locked(folder)):
        record = group.share(lambda: _ended(folder, resolved))
        if record is not None:
            watch.say(f"{folder.name}: already {record.status}")
            return record
        machine.keep_freed_memory()
        devices = [device] if device.type == "cuda" else []
        # Dropout draws from torch's global generator: it is seeded for each step, and given back as it was.
        apart = torch.random.fork_rng(devices=devices)
        with apart, machine.repeatable(device), stop_requests() as stop_requested:
            run = Run(resolved, dataset, folder, device, watch, group, lambda: stop_requested() or stop())
            try:
                status = run.go()
                keeping.summarize(run, status)
            except Diverged as fault:
                keeping.summarize(run, "diverged", diagnosis=fault.diagnosis)
                watch.say(f"{folder.name} diverged in epoch {fault.diagnosis['epoch']}: {fault}")
            except KeyboardInterrupt:
                keeping.summarize(run, "stopped")
                raise
            except Exception as error:
                if group.lost(error):
                    return run.abandon()
                keeping.summarize(run, "failed", error="".join(traceback.format_exception_only(error)).strip())
                raise
            record = group.share(lambda: run_files.read(folder))
            if stop_requested() and record.status != "stopped":
                raise KeyboardInterrupt
    return record


@contextlib.contextmanager
def _made_and_locked(folder: Path) -> Iterator[None]:
    out_made, made = not folder.parent.exists(), not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the run folder {folder}: {error.strerror}; choose another --out") from error
    try:
        with locked(folder):
            yield
    except BaseException:
        # What was refused before it began leaves nothing.
        if made and [path.name for path in folder.iterdir()] == ["lock"]:
            (folder / "lock").unlink()
            folder.rmdir()
            if out_made and not any(folder.parent.iterdir()):
                folder.parent.rmdir()
        raise


def _say_subsets(config: TrainConfig, dataset: Dataset, watch: Watch) -> None:
    there = {"train_images": dataset.train_count, "test_images": dataset.test_count}
    there["validation_images"] = min(there["test_images"], config.test_images or there["test_images"])
    for name, images in there.items():
        asked = getattr(config, name)
        if asked is not None and asked > images:
            watch.say(f"{name}={asked:,}: there are {images:,}; all of them are used")


def _ended(folder: Path, config: TrainConfig) -> run_files.Record | None:
    """The run's record, if there is nothing left to run."""
    if not ((folder / "summary.json").exists() and (folder / "config.json").exists()):
        return None
    record = run_files.read(folder)
    whole = record.status == "diverged" or (
        record.status == "finished" and not tasks.get(config.task).work_class.lacks(config, folder)
    )
    return record if whole else None
