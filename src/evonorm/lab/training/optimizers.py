"""SGD and Adam as the report's framework (Keras 2.3 in TensorFlow 2.2) has them, with weight decay and schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evonorm.lab.training import schedules
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.schedules import Schedule
from evonorm.layers.conversion import parameter_groups

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-7


class KerasOptimizer(torch.optim.Optimizer):
    """What both share: per batch t = 0, 1, ..., rate_t = schedule(t) * learning_rate / (1 + decay * t), and clipping.

    clip_norm: gradients of a larger norm are scaled to it, each tensor on its own, before weight decay has a part in
    them. schedule: default 1. parameters may be groups, each with its `weight_decay`; without it nothing is decayed.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        learning_rate: float,
        decay: float = 0.0,
        clip_norm: float | None = None,
        schedule: Schedule | None = None,
        **own: float,
    ) -> None:
        self.clip_norm, self._schedule = clip_norm, schedule
        super().__init__(parameters, {"learning_rate": learning_rate, "decay": decay, "iterations": 0, **own})

    def learning_rate(self) -> float:
        """rate_t of the next batch."""
        group = self.param_groups[0]
        rate = float(group["learning_rate"] / (1 + group["decay"] * group["iterations"]))
        return rate if self._schedule is None else rate * self._schedule(group["iterations"])

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        self.apply(self.scales())
        self.count()

    def scales(self) -> list[float]:
        """What the next batch multiplies by, group after group: all of `apply` that changes with the batch's number."""
        rate = self.learning_rate()
        return [scale for group in self.param_groups for scale in self._scales(group, rate)]

    @torch.no_grad()
    def apply(self, scales: Sequence[float | Tensor]) -> None:
        """Updates every parameter that has a gradient. scales: numbers, or scalars on the parameters' device."""
        each = len(scales) // len(self.param_groups)
        for number, group in enumerate(self.param_groups):
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [self._clipped(p.grad) for p in parameters]
            if parameters:
                self._update(group, parameters, gradients, *scales[number * each :][:each])

    def count(self) -> None:
        """One batch more is behind."""
        for group in self.param_groups:
            group["iterations"] += 1

    def _clipped(self, gradient: Tensor) -> Tensor:
        if self.clip_norm is None:
            return gradient
        norm: Tensor = torch.linalg.vector_norm(gradient)
        return gradient * (self.clip_norm / norm.clamp(min=self.clip_norm))

    def _slots(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return [self.state[parameter][name] for parameter in parameters]

    def _scales(self, group: dict[str, Any], rate: float) -> tuple[float, ...]:
        raise NotImplementedError

    def _update(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], *scales: float | Tensor
    ) -> None:
        raise NotImplementedError


class SGD(KerasOptimizer):
    """velocity = momentum * velocity - rate_t * (gradient + weight_decay * parameter); parameter += velocity.

    The rate is inside the velocity, unlike torch.optim.SGD; they differ once the rate changes. Weight decay is
    torch.optim.SGD's.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        learning_rate: float = 1e-2,
        momentum: float = 0.9,
        decay: float = 0.0,
        clip_norm: float | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(
            parameters,
            learning_rate=learning_rate,
            decay=decay,
            clip_norm=clip_norm,
            schedule=schedule,
            momentum=momentum,
        )

    def _scales(self, group: dict[str, Any], rate: float) -> tuple[float, ...]:
        return (-rate,)

    def _update(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], *scales: float | Tensor
    ) -> None:
        (downhill,) = scales
        if weight_decay := group.get("weight_decay"):
            gradients = list(torch._foreach_add(gradients, parameters, alpha=weight_decay))
        velocity = self._slots(parameters, "velocity")
        torch._foreach_mul_(velocity, group["momentum"])
        torch._foreach_add_(velocity, torch._foreach_mul(gradients, downhill))
        torch._foreach_add_(parameters, velocity)


class Adam(KerasOptimizer):
    """m, v: running means of gradient and its square (betas, default 0.9, 0.999); with T = t + 1,

    parameter -= rate_t * sqrt(1 - beta2^T) / (1 - beta1^T) * m / (sqrt(v) + epsilon): the paper's "epsilon hat".

    Before that, parameter -= rate_t * weight_decay * parameter: weight decay as torch.optim.AdamW has it.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        learning_rate: float = 1e-3,
        decay: float = 0.0,
        clip_norm: float | None = None,
        schedule: Schedule | None = None,
        betas: tuple[float, float] = ADAM_BETAS,
    ) -> None:
        self._betas = betas
        super().__init__(parameters, learning_rate=learning_rate, decay=decay, clip_norm=clip_norm, schedule=schedule)

    def _scales(self, group: dict[str, Any], rate: float) -> tuple[float, ...]:
        beta1, beta2 = self._betas
        step = group["iterations"] + 1
        correction = math.sqrt(1 - beta2**step) / (1 - beta1**step)
        return -rate * correction, 1 - rate * (group.get("weight_decay") or 0.0)

    def _update(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], *scales: float | Tensor
    ) -> None:
        beta1, beta2 = self._betas
        downhill, kept = scales
        if group.get("weight_decay"):
            torch._foreach_mul_(parameters, kept)
        mean, square = self._slots(parameters, "mean"), self._slots(parameters, "square")
        torch._foreach_lerp_(mean, gradients, 1 - beta1)
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - beta2)
        scale = torch._foreach_sqrt(square)
        torch._foreach_add_(scale, ADAM_EPSILON)
        change = torch._foreach_div(mean, scale)
        torch._foreach_mul_(change, downhill)
        torch._foreach_add_(parameters, change)


def make(
    config: TrainConfig, model: nn.Module, *, steps_per_epoch: int, betas: tuple[float, float] = ADAM_BETAS
) -> KerasOptimizer:
    """The optimizer of a resolved config; see schedules.of for steps_per_epoch and parameter_groups for what decays.

    betas: of Adam.
    """
    assert None not in (config.learning_rate, config.decay), "the config is not resolved"
    rates = {"learning_rate": config.learning_rate or 0.0, "decay": config.decay or 0.0}
    schedule = schedules.of(config, steps_per_epoch=steps_per_epoch)
    # One group without weight decay, as in checkpoints from before there was any.
    parameters: Parameters = model.parameters()
    if config.weight_decay:
        parameters = [group for group in parameter_groups(model, weight_decay=config.weight_decay) if group["params"]]
    if config.optimizer == "adam":
        return Adam(parameters, **rates, clip_norm=config.clip_norm, schedule=schedule, betas=betas)
    return SGD(parameters, **rates, momentum=config.momentum, clip_norm=config.clip_norm, schedule=schedule)
