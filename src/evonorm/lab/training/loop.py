"""One run: its position among steps and epochs, where it stops and goes on, and what it keeps in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from evonorm.lab import machine
from evonorm.lab.data.sets import Dataset
from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.training import checkpoint, tasks
from evonorm.lab.training.checkpoint import Position
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.diagnosis import diagnose
from evonorm.lab.training.progress import Watch
from evonorm.lab.training.replicas import Replicas
from evonorm.lab.training.seeding import derive, generator
from evonorm.lab.training.stages import STEP
from evonorm.lab.training.tasks.work import NotFinite
from evonorm.models import zoo

CHECKPOINT_SECONDS = 120.0


class Diverged(Exception):
    """The loss or a gradient of this step was not finite; carries the diagnosis."""

    def __init__(self, diagnosis: dict[str, Any]) -> None:
        super().__init__(diagnosis["cause"])
        self.diagnosis = diagnosis


class Run:
    """One run's task at work, its position, and the folder they are kept in."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        folder: Path,
        device: torch.device,
        watch: Watch,
        group: Replicas | None = None,
    ) -> None:
        self.config, self.folder, self.device, self.watch = config, folder, device, watch
        self.group = group or Replicas()
        self.task = tasks.get(config.task)
        self.work = self.task.work_class(config, dataset, device, folder, self.group)
        self.images = self.work.sizes[0]
        filled = -(-self.images // self.work.images_per_step)
        self.steps = min(filled, config.steps_per_epoch or filled)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(config.seeds.model, "weights"))
            self.work.build(self.steps)
        self.group.check(images=self.images, batch_size=self.work.images_per_step, steps=self.steps)
        self.position = Position()
        self.epochs: list[dict[str, Any]] = []
        self.started = time.monotonic()
        self.seconds_before = 0.0
        self._resume()
        self._describe(dataset)
        self.work.spread()
        self._buffers: list[Tensor] = []

    def go(self, stop_requested: Callable[[], bool]) -> str:
        """Runs to the end, or to the step at which a stop was requested: `finished` or `stopped`."""
        config, position = self.config, self.position
        done = position.epoch * self.steps + position.step
        self.watch.begin(self.folder.name, steps=config.epochs * self.steps, done=done)
        saved = time.monotonic()
        while position.epoch < config.epochs:
            order = torch.randperm(self.images, generator=generator(config.seeds.order, "order", position.epoch))
            while position.step < self.steps:
                if self.group.any(stop_requested()):
                    self._save()
                    return "stopped"
                first = position.step * self.work.images_per_step
                with record_function(STEP):
                    self._step(order[first : first + self.work.images_per_step])
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.monotonic()
            self._end_epoch()
            saved = time.monotonic()
        return "finished"

    def summarize(self, status: str, *, diagnosis: dict[str, Any] | None = None, error: str | None = None) -> None:
        """Writes summary.json."""
        if not self.group.first:
            return
        run_files.write_json(
            self.folder / "summary.json",
            {
                "status": status,
                "epochs_done": self.position.epoch,
                "best": self.task.goal.best(self.epochs),
                "last": self.epochs[-1] if self.epochs else None,
                "diagnosis": diagnosis,
                "error": error,
                "parameters": sum(p.numel() for p in self.work.model.parameters() if p.requires_grad),
                "groups_in_force": zoo.groups_in_force(self.work.model),
                "seconds": self.seconds_before + time.monotonic() - self.started,
            },
        )

    def abandon(self) -> run_files.Record:
        """Ends the run as stopped, at its last whole step, when another of its processes is gone."""
        if not self.group.first:
            raise UserError(f"{self.folder.name}: another process of the run is gone; repeat the command to go on")
        for buffer, before in zip(self.work.model.buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        self._save()
        self.summarize("stopped")
        self.watch.say(f"{self.folder.name}: another process of the run is gone")
        return run_files.read(self.folder)

    def _step(self, chosen: Tensor) -> None:
        started = time.perf_counter()
        position = self.position
        step = position.epoch * self.steps + position.step
        if self.group.size > 1:  # a step that is broken off has blended its batch into them
            self._buffers = [buffer.clone() for buffer in self.work.model.buffers()]
        self.work.model.train()
        try:
            loss, sums = self.work.update(chosen, step)
        except NotFinite as fault:
            with self.group.apart(self.work.model):
                found = diagnose(fault.model, fault.loss_of, loss=fault.loss)
            where = {"epoch": position.epoch + 1, "step": step + 1, "loss": fault.loss}
            raise Diverged({**where, **asdict(found)}) from None
        mean, whole = self.group.mean(loss, sums)
        position.add({"loss": mean * len(chosen), **whole}, len(chosen))
        position.train_seconds += time.perf_counter() - started
        self.watch.step(
            epoch=position.epoch + 1,
            step=position.step,
            metrics=self._measured("train"),
            images_per_second=position.seen / position.train_seconds,
        )

    def _end_epoch(self) -> None:
        started = time.perf_counter()
        position = self.position
        rate = next(iter(self.work.optimizers.values())).learning_rate()
        found = {"train": self._measured("train"), "val": self._measured("val")}
        metrics = {
            "epoch": position.epoch + 1,
            **{f"{split}_{name}": value for split, metrics in found.items() for name, value in metrics.items()},
            "learning_rate": rate,
            "images_per_second": position.seen / position.train_seconds,
            "seconds": position.train_seconds + time.perf_counter() - started,
        }
        self.epochs.append(metrics)
        if self.group.first:
            run_files.append_metrics(self.folder, metrics)
        self.watch.epoch(metrics)
        position.__dict__.update(asdict(Position(epoch=position.epoch + 1)))
        self._save()

    def _measured(self, split: str) -> dict[str, float]:
        """The task's metrics of this split, in the order of its row: of the epoch so far, or of the validation."""
        if split == "train":
            found = self.work.measure(self.position.sums, self.position.seen)
        else:
            self.work.model.eval()
            with torch.inference_mode():
                found = self.work.validate(self.position.epoch + 1)
        names = [metric.name for metric in self.task.measured_on(split)]
        if set(found) != set(names):
            raise UserError(f"task {self.task.name} must measure {', '.join(names)}: got {', '.join(found)}")
        return {name: found[name] for name in names}

    def _save(self) -> None:
        if not self.group.first:
            return
        seconds = self.seconds_before + time.monotonic() - self.started
        checkpoint.save(self.folder, self.work.state(), self.position, seconds)

    def _resume(self) -> None:
        kept = self.group.share(lambda: checkpoint.load(self.folder, self.work.load, self.device))
        if kept is not None:
            self.position, self.seconds_before, self.epochs = kept
            state = self.group.share(self.work.state)
            if not self.group.first:
                self.work.load(state)

    def _describe(self, dataset: Dataset) -> None:
        """Writes what the run is and what it runs on."""
        if not self.group.first:
            return
        path = self.folder / "environment.json"
        sessions = run_files.read_json(path).get("sessions", []) if path.exists() else []
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        environment = machine.environment(self.device)
        session = {"started": now, "epoch": self.position.epoch + 1, "threads": environment["threads"]}
        sessions.append(session | {"processes": self.group.size})
        # The path of the data is this machine's; the record names the data by content.
        config = asdict(replace(self.config, data=dataset.name, device=self.device.type))
        train_images, test_images = self.work.sizes
        about = {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "notice": dataset.notice,
            "classes": list(dataset.classes),
            "train_images": train_images,
            "test_images": test_images,
        }
        run_files.write_json(self.folder / "config.json", {"config": config, "dataset": about})
        run_files.write_json(path, environment | {"sessions": sessions})
        if self.work.plan is not None:
            run_files.write_atomically(self.folder / "plan.json", self.work.plan.to_json().encode())
            self.watch.say(self.work.plan.summary)
        self.summarize("running")
