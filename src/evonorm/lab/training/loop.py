"""One run: its position among steps and epochs, where it stops and goes on, and what it keeps in its folder."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from evonorm.lab.data.sets import Dataset
from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.training import capture, checkpoint, keeping, tasks
from evonorm.lab.training.checkpoint import Position
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.diagnosis import diagnose, diagnose_validation
from evonorm.lab.training.progress import Watch
from evonorm.lab.training.replicas import Replicas
from evonorm.lab.training.seeding import derive, generator
from evonorm.lab.training.stages import STEP
from evonorm.lab.training.tasks.work import NotFinite, Pass

CHECKPOINT_SECONDS = 120.0
# Steps between two looks at what the device has found; 32 is a choice, not measured.
CHECK_STEPS = {"cpu": 1, "cuda": 32}


class Diverged(Exception):
    """The loss or a gradient of a step, or of the last validation, was not finite; carries the diagnosis."""

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
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.folder, self.device, self.watch = config, folder, device, watch
        self.group, self.stop = group or Replicas(), stop
        self.task = tasks.get(config.task)
        self.work = self.task.work_class(config, dataset, device, folder, self.group, stop)
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
        # Looking waits for the device; several processes wait for one another in each step anyway.
        self.interval = config.check_steps or (CHECK_STEPS[device.type] if self.group.size == 1 else 1)
        self.captured = capture.steps(self.work, self._uncaptured, interval=self.interval) if config.capture else None
        self._resume()
        keeping.describe(self, dataset)
        self.work.spread()
        self._faults = torch.zeros((), dtype=torch.int64, device=device)
        self._unread: list[tuple[int, Pass]] = []
        self._before: dict[str, Any] = {}
        self._buffers: list[Tensor] = []
        self._spent = 0.0

    def go(self) -> str:
        """Runs to the end, or to the step at which a stop was requested: `finished` or `stopped`. Raises Diverged."""
        config, position = self.config, self.position
        done = position.epoch * self.steps + position.step
        self.watch.begin(self.folder.name, steps=config.epochs * self.steps, done=done)
        saved = time.monotonic()
        while position.epoch < config.epochs:
            order = torch.randperm(self.images, generator=generator(config.seeds.order, "order", position.epoch))
            while position.step + len(self._unread) < self.steps:
                if self.group.any(self.stop()):
                    self._look(order)
                    self._save()
                    return "stopped"
                with record_function(STEP):
                    self._step(order)
                due = time.monotonic() - saved > CHECKPOINT_SECONDS
                if due or len(self._unread) >= self.interval:
                    self._look(order)
                if due:
                    self._save()
                    saved = time.monotonic()
            self._look(order)
            self._end_epoch()
            saved = time.monotonic()
        self._check_validation()
        self.work.model.eval()
        with torch.inference_mode():
            self.work.finish()
        return "finished"

    def abandon(self) -> run_files.Record:
        """Ends the run as stopped, at its last whole step, when another of its processes is gone."""
        if not self.group.first:
            raise UserError(f"{self.folder.name}: another process of the run is gone; repeat the command to go on")
        if self._unread:
            self._go_back()
        else:
            for buffer, before in zip(self.work.model.buffers(), self._buffers, strict=True):
                buffer.copy_(before)
        self._save()
        keeping.summarize(self, "stopped")
        self.watch.say(f"{self.folder.name}: another process of the run is gone")
        return run_files.read(self.folder)

    def _step(self, order: Tensor, *, alone: bool = False) -> None:
        """One step. alone: what it found is looked at now, whatever the interval."""
        started = time.perf_counter()
        alone = alone or self.interval == 1
        number = self.position.step + len(self._unread)
        chosen = order[number * self.work.images_per_step :][: self.work.images_per_step]
        if not alone and not self._unread:
            self._before = copy.deepcopy(self.work.state())
            self.work.faults = self._faults.zero_()
        if self.group.size > 1:  # a step that is broken off has blended its batch into them
            self._buffers = [buffer.clone() for buffer in self.work.model.buffers()]
        step = self.position.epoch * self.steps + number
        self.work.model.train()
        try:
            found = self.work.update(chosen, step) if alone or not self.captured else self.captured(chosen, step)
        except NotFinite as fault:
            with self.group.apart(self.work.model):
                why = diagnose(fault.model, fault.loss_of, loss=fault.loss)
            where = {"epoch": self.position.epoch + 1, "step": step + 1, "loss": fault.loss}
            raise Diverged({**where, **asdict(why)}) from None
        except Exception:
            if alone or self.group.size > 1:  # the others would wait for it
                raise
            self._again(order, len(self._unread) + 1)  # what is not finite may be why
            return
        if alone:
            loss, sums = self.group.mean(*found)
            self._spent += time.perf_counter() - started
            self._count(len(chosen), loss, sums)
        else:
            self._unread.append((len(chosen), found))
            self._spent += time.perf_counter() - started

    def _look(self, order: Tensor) -> None:
        """Reads what the steps since the last look found; if not all was finite, takes them again."""
        started = time.perf_counter()
        unread, faults = self._unread, self.work.faults
        if not unread or faults is None:
            return
        values = [faults, *(value for _, (loss, sums) in unread for value in (loss, *sums.values()))]
        broken, *read = self.group.read(values)
        self._spent += time.perf_counter() - started
        if broken:
            self._again(order, len(unread))
            return
        self._unread, self.work.faults = [], None
        left = iter(read)
        for count, (_, sums) in unread:
            self._count(count, next(left) / self.group.size, {name: next(left) for name in sums})

    def _again(self, order: Tensor, steps: int) -> None:
        """Takes so many steps since the last look again, each looked at as if the interval were 1."""
        self._go_back()
        for _ in range(steps):
            self._step(order, alone=True)

    def _go_back(self) -> None:
        """To the last look."""
        self._unread, self.work.faults = [], None
        self.work.model.zero_grad(set_to_none=True)  # a step may have broken off behind its backward pass
        self.work.load(self._before)
        if self.captured:
            self.captured.forget()

    def _uncaptured(self, why: str) -> None:
        self.watch.say(why)
        keeping.amend(self, captured=False)

    def _count(self, images: int, loss: float, sums: Mapping[str, float]) -> None:
        """A step is done and was sound: its mean loss, and its sums over so many images."""
        position = self.position
        position.add({"loss": loss * images, **sums}, images)
        position.train_seconds += self._spent
        self._spent = 0.0
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

    def _check_validation(self) -> None:
        """A network that the last validation found no finite loss of is lost, though its training went on."""
        judged = self.task.measured_on("val")
        value = self.epochs[-1][(judged[0] if tasks.LOSS.name == judged[0].name else self.task.goal).key()]
        if value is None or not math.isfinite(value):
            if self.captured:
                self.captured.let_validation_go()
            found = diagnose_validation(self.work.model, lambda: self._validated(self.position.epoch))
            where = {"epoch": self.position.epoch, "step": self.position.epoch * self.steps, "loss": value}
            raise Diverged({**where, **asdict(found)})

    def _validated(self, epoch: int) -> Mapping[str, float]:
        self.work.model.eval()
        with torch.inference_mode():
            return self.work.validate(epoch)

    def _measured(self, split: str) -> dict[str, float]:
        """The task's metrics of this split, in the order of its row: of the epoch so far, or of the validation."""
        if split == "train":
            found = self.work.measure(self.position.sums, self.position.seen)
        else:
            found = self._validated(self.position.epoch + 1)
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
