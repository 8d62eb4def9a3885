"""The part of a task that needs torch: its data on the device, its networks, their steps and their validation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from evonorm.lab.training import inputs, optimizers
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.optimizers import KerasOptimizer
from evonorm.lab.training.replicas import Replicas
from evonorm.lab.training.stages import stage
from evonorm.layers.conversion import Plan
from evonorm.models import zoo

# What a pass over images gives: the loss, a scalar with a gradient, and sums that add up over images, batches and
# processes.
Pass = tuple[Tensor, Mapping[str, Tensor]]
PassOf = Callable[[nn.Module], Pass]


class Moves(Protocol):
    """An optimizer as a descent needs it."""

    def step(self) -> None:
        """Updates every parameter that has a gradient."""


class NotFinite(Exception):
    """The loss of this network, or a gradient, was not finite. loss_of: the loss again, of a copy of the network."""

    def __init__(self, model: nn.Module, loss_of: Callable[[nn.Module], Tensor], loss: float) -> None:
        super().__init__(f"loss {loss}")
        self.model, self.loss_of, self.loss = model, loss_of, loss


class Work(ABC):
    """A task at work in one run: the loop knows when, a Work knows what.

    By default a run has one network and one optimizer, a step is one descent of `training_pass`, and every image counts
    once. What is drawn must come from the seeds of the configuration and the number of the step, what changes in
    training must lie in `model` or `optimizers`: then a run goes on to the last bit.

    model: all networks of the run, in one module; its state is in the checkpoint. optimizers: by their names there; the
    first one's learning rate is the record's. plan: how the layers got into the network, where that is to be told and
    kept. They are there once `build` was called. faults: None, and what is not finite is told at once; or a count of it
    on the device, which the loop reads later: till then nothing is read from there.
    """

    faults: Tensor | None = None
    plan: Plan | None = None
    model: nn.Module
    optimizers: dict[str, KerasOptimizer]
    _spread: nn.Module

    def __init__(
        self,
        config: TrainConfig,
        dataset: Any,
        device: torch.device,
        folder: Path,
        group: Replicas | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """config: resolved. dataset: what the task's row loads. folder: the run's. group: the processes of the run.

        stop: whether the run is to stop, for what takes long before its first step: that raises KeyboardInterrupt then.
        """
        self.config, self.dataset, self.device, self.folder = config, dataset, device, folder
        self.group, self.stop = group or Replicas(), stop

    @classmethod
    def known(cls, model: str) -> str:
        """The model's name in the one way it is written; raises ValueError if the task has none of this name."""
        return zoo.known(model)

    @classmethod  # noqa: B027  # a task that serves all options has nothing to say
    def check(cls, config: TrainConfig) -> None:
        """Raises UserError for an option that the task does not serve."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """Training and validation images that the configuration chooses."""

    @property
    def images_per_step(self) -> int:
        """Training images that a step takes; the last of an epoch may get fewer."""
        return self.config.batch_size

    @abstractmethod
    def network(self) -> nn.Module:
        """The network, untrained; torch's global generator is seeded with seeds.model, and given back afterwards."""

    @abstractmethod
    def training_pass(self, model: nn.Module, chosen: Tensor, step: int) -> Pass:
        """The mean loss of this process's part of the chosen training images (see Replicas.loss), and sums over it.

        chosen: numbers of training images, int64 (N,). step: counted over all epochs. A fault's diagnosis repeats it on
        a copy of the model.
        """

    @abstractmethod
    def validate(self, epoch: int) -> Mapping[str, float]:
        """Every metric of the validation images, by name. Called in evaluation and inference mode.

        epoch: from 1 on; what is written into the run's folder is named by it, and written by `group.first` alone.
        """

    def finish(self) -> None:  # noqa: B027
        """Called when the last epoch has ended, in evaluation and inference mode: what is kept of that alone."""

    @classmethod
    def lacks(cls, config: TrainConfig, folder: Path) -> bool:
        """Whether the finished run in `folder` is to be opened again, for what `finish` is asked for since."""
        return False

    def measure(self, sums: Mapping[str, float], images: int) -> Mapping[str, float]:
        """Metrics by name, from the sums over so many images, "loss" among them; default: each sum's mean."""
        return {name: value / images for name, value in sums.items()}

    def build(self, steps_per_epoch: int) -> None:
        """Makes `model` and `optimizers`."""
        self.model = self.placed(self.network())
        made = optimizers.make(self.config, self.model, steps_per_epoch=steps_per_epoch)
        self.optimizers = {"optimizer": made}

    def placed(self, model: nn.Module) -> nn.Module:
        """The model on the device, in the memory order of the configuration."""
        at = {"device": self.device, "memory_format": inputs.memory_format(self.config)}
        return model.to(**at)  # type: ignore[no-any-return, call-overload]

    def spread(self) -> None:
        """Makes the model one of all processes' own, once it is where it starts or goes on."""
        self._spread = self.group.spread(self.model)

    def update(self, chosen: Tensor, step: int) -> Pass:
        """One training step on the chosen images: its loss and sums, of this process. See training_pass and descend."""
        optimizer = next(iter(self.optimizers.values()))
        return self.descend(self.model, optimizer, lambda model: self.training_pass(model, chosen, step))

    def descend(self, model: nn.Module, optimizer: Moves, *passes: PassOf) -> Pass:
        """Moves the model's parameters against the gradient of the passes' summed losses; that sum, and their sums.

        Several passes accumulate their gradients: each gives its share of the mean loss. Raises NotFinite before
        anything moved, unless faults are counted.
        """
        loss, sums = self._pass(model, passes[0])
        for one in passes[1:]:
            more, own = self._pass(model, one)
            loss, sums = loss + more, {name: sums[name] + own[name] for name in sums}
        with stage("gradient check"):
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            if self.faults is not None:
                # A norm that overflows is a fault too: taken again, it turns out to be none.
                self.faults += ~(loss.isfinite() & nn.utils.get_total_norm(gradients).isfinite())
            elif self.group.any(not (math.isfinite(loss.item()) and _all_finite(gradients))):
                raise NotFinite(model, lambda copy: _total(one(copy) for one in passes), self.group.mean(loss, {})[0])
        with stage("optimizer"):
            optimizer.step()
            self.model.zero_grad(set_to_none=True)  # of all networks: a loss may reach through another
        return loss, sums

    @property
    def bf16(self) -> bool:
        """Whether the configuration computes in bfloat16, by autocast."""
        return self.config.precision == "bf16"

    def autocast(self) -> torch.autocast:
        """The precision of the configuration."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def state(self) -> dict[str, Any]:
        """All that training changes, for the checkpoint."""
        return {"model": self.model.state_dict(), **{name: one.state_dict() for name, one in self.optimizers.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Puts model and optimizers into this state."""
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])

    def _pass(self, model: nn.Module, pass_of: PassOf) -> Pass:
        loss, sums = pass_of(self._spread if model is self.model else model)
        with stage("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), sums


def _total(passes: Iterable[Pass]) -> Tensor:
    return torch.stack([loss for loss, _ in passes]).sum()


def _all_finite(gradients: list[Tensor]) -> bool:
    # The Euclidean norm takes a third of the time, but overflows from 1e19 on: then the largest element decides.
    norms = (nn.utils.get_total_norm(gradients, norm_type=order) for order in (2.0, math.inf))
    return any(bool(torch.isfinite(norm)) for norm in norms)
