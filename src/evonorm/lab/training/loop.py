"""One run at work: its model, optimizer, data and place; steps, epochs, and what it keeps in its folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from evonorm.lab import machine
from evonorm.lab.data.sets import Dataset
from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.training import checkpoint, inputs, optimizers, tasks
from evonorm.lab.training.checkpoint import Position
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.diagnosis import diagnose
from evonorm.lab.training.inputs import stage
from evonorm.lab.training.progress import Watch
from evonorm.lab.training.replicas import Replicas
from evonorm.lab.training.seeding import derive, generator
from evonorm.models import zoo

CHECKPOINT_SECONDS = 120.0
VALIDATION_BATCH = 256
# What a profiler sees of the loop: a step, and in it the stages of inputs.stage.
STEP = "evonorm step"


class Diverged(Exception):
    """The loss or a gradient of this step was not finite; carries the diagnosis."""

    def __init__(self, diagnosis: dict[str, Any]) -> None:
        super().__init__(diagnosis["cause"])
        self.diagnosis = diagnosis


class Run:
    """One run's model, optimizer, data and position, and the folder they are kept in."""

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
        self.work = self.task.work()
        self.inputs = self.work.inputs(config, dataset, device)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(config.seeds.model, "weights"))
            network = self.work.network(config, dataset)
        self.model = network.to(device=device, memory_format=inputs.memory_format(config))  # type: ignore[call-overload]
        filled = -(-self.inputs.train_images // config.batch_size)
        self.steps = min(filled, config.steps_per_epoch or filled)
        self.optimizer = optimizers.make(config, self.model, steps_per_epoch=self.steps)
        self.group.check(images=self.inputs.train_images, batch_size=config.batch_size, steps=self.steps)
        self.position = Position()
        self.epochs: list[dict[str, Any]] = []
        self.started = time.monotonic()
        self.seconds_before = 0.0
        self._resume()
        self._describe(dataset)
        self.spread = self.group.spread(self.model)
        self._buffers: list[Tensor] = []

    def go(self, stop_requested: Callable[[], bool]) -> str:
        """Runs to the end, or to the step at which a stop was requested: `finished` or `stopped`."""
        config, position = self.config, self.position
        done = position.epoch * self.steps + position.step
        self.watch.begin(self.folder.name, steps=config.epochs * self.steps, done=done)
        saved = time.monotonic()
        while position.epoch < config.epochs:
            order = torch.randperm(
                self.inputs.train_images, generator=generator(config.seeds.order, "order", position.epoch)
            )
            while position.step < self.steps:
                if self.group.any(stop_requested()):
                    self._save()
                    return "stopped"
                first = position.step * config.batch_size
                with record_function(STEP):
                    self._step(order[first : first + config.batch_size])
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
                "parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
                "groups_in_force": zoo.groups_in_force(self.model),
                "seconds": self.seconds_before + time.monotonic() - self.started,
            },
        )

    def abandon(self) -> run_files.Record:
        """Ends the run as stopped, at its last whole step, when another of its processes is gone."""
        if not self.group.first:
            raise UserError(f"{self.folder.name}: another process of the run is gone; repeat the command to go on")
        for buffer, before in zip(self.model.buffers(), self._buffers, strict=True):
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
            self._buffers = [buffer.clone() for buffer in self.model.buffers()]
        images, labels = self._batch(chosen, step)
        self.model.train()
        with stage("forward"):
            output = self._dropped_out(self.spread, images, labels, step)
            loss = self.group.loss(lambda reduction: self.work.loss(output, images, labels, reduction))
        loss_value, sums = self.group.mean(loss, self.work.sums(output, images, labels))
        finite = math.isfinite(loss_value)
        if finite:
            with stage("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
            with stage("gradient check"):
                finite = _all_finite([p.grad for p in self.model.parameters() if p.grad is not None])
        if not finite:
            with self.group.apart(self.model):
                images, labels = self._batch(chosen, step)
                found = diagnose(
                    self.model,
                    lambda model: self.work.loss(
                        self._dropped_out(model, images, labels, step), images, labels, "mean"
                    ),
                    loss=loss_value,
                )
            raise Diverged({"epoch": position.epoch + 1, "step": step + 1, "loss": loss_value, **asdict(found)})
        with stage("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

        position.add({"loss": loss_value * len(chosen), **sums}, len(chosen))
        position.train_seconds += time.perf_counter() - started
        self.watch.step(
            epoch=position.epoch + 1,
            step=position.step,
            metrics=self._measured("train", self.work.measure(position.sums, position.seen)),
            images_per_second=position.seen / position.train_seconds,
        )

    def _end_epoch(self) -> None:
        started = time.perf_counter()
        position = self.position
        rate = self.optimizer.learning_rate()
        of_training = self.work.measure(position.sums, position.seen)
        found = {"train": self._measured("train", of_training), "val": self._measured("val", self._validate())}
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

    @torch.inference_mode()
    def _validate(self) -> Mapping[str, float]:
        """The metrics over the validation images."""
        self.model.eval()
        judged = self.work.judge(self.model, self.inputs, self.folder, self.position.epoch + 1)
        if judged is not None:
            return judged
        # A process whose part is empty has to add as many zeros as the others have sums.
        sums: dict[str, float] = dict.fromkeys(self.position.sums, 0)
        stride = VALIDATION_BATCH * self.group.size
        for first in range(VALIDATION_BATCH * self.group.rank, self.inputs.val_images, stride):
            images, labels = self.inputs.validation(slice(first, first + VALIDATION_BATCH))
            output = self._output(self.model, images, labels)
            own = {"loss": self.work.loss(output, images, labels, "sum"), **self.work.sums(output, images, labels)}
            for name, value in own.items():
                sums[name] += value.item()
        whole = dict(zip(sums, self.group.sum(*sums.values()), strict=True))
        return self.work.measure(whole, self.inputs.val_images)

    def _measured(self, split: str, found: Mapping[str, float]) -> dict[str, float]:
        """The task's metrics in the order of its row."""
        names = [metric.name for metric in self.task.measured_on(split)]
        if set(found) != set(names):
            raise UserError(f"task {self.task.name} must measure {', '.join(names)}: got {', '.join(found)}")
        return {name: found[name] for name in names}

    def _batch(self, chosen: Tensor, step: int) -> tuple[Any, Any]:
        """This process's images and labels of the batch, as the network takes them."""
        return self.inputs.batch(chosen, step, self.group.part(len(chosen)))

    def _dropped_out(self, model: nn.Module, images: Any, labels: Any, step: int) -> Any:
        """The network's output, with this step's draw of dropout."""
        _seed_dropout(derive(self.config.seeds.model, "dropout", step), self.device)
        return self._output(model, images, labels)

    def _output(self, model: nn.Module, images: Any, labels: Any) -> Any:
        bf16 = self.config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return self.work.output(model, images, labels)

    def _save(self) -> None:
        if not self.group.first:
            return
        seconds = self.seconds_before + time.monotonic() - self.started
        checkpoint.save(self.folder, self.model, self.optimizer, self.position, seconds)

    def _resume(self) -> None:
        kept = self.group.share(lambda: checkpoint.load(self.folder, self.model, self.optimizer, self.device))
        if kept is not None:
            self.position, self.seconds_before, self.epochs = kept
            state = self.group.share(lambda: (self.model.state_dict(), self.optimizer.state_dict()))
            if not self.group.first:
                self.model.load_state_dict(state[0])
                self.optimizer.load_state_dict(state[1])

    def _describe(self, dataset: Dataset) -> None:
        """Writes what the run is and what it runs on."""
        if not self.group.first:
            return
        about = {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "notice": dataset.notice,
            "classes": list(dataset.classes),
            "train_images": self.inputs.train_images,
            "test_images": self.inputs.val_images,
        }
        path = self.folder / "environment.json"
        sessions = run_files.read_json(path).get("sessions", []) if path.exists() else []
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        environment = machine.environment(self.device)
        session = {"started": now, "epoch": self.position.epoch + 1, "threads": environment["threads"]}
        sessions.append(session | {"processes": self.group.size})
        # The path of the data is this machine's; the record names the data by content.
        config = asdict(replace(self.config, data=dataset.name, device=self.device.type))
        run_files.write_json(self.folder / "config.json", {"config": config, "dataset": about})
        run_files.write_json(path, environment | {"sessions": sessions})
        if self.work.plan is not None:
            run_files.write_atomically(self.folder / "plan.json", self.work.plan.to_json().encode())
            self.watch.say(self.work.plan.summary)
        self.summarize("running")


def _seed_dropout(seed: int, device: torch.device) -> None:
    # torch.manual_seed asks every kind of device, and takes a stack trace for CUDA's that is not there: 0.3 ms.
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _all_finite(gradients: list[Tensor]) -> bool:
    # The Euclidean norm takes a third of the time, but overflows from 1e19 on: then the largest element decides.
    norms = (nn.utils.get_total_norm(gradients, norm_type=order) for order in (2.0, math.inf))
    return any(bool(torch.isfinite(norm)) for norm in norms)
