"""SGD and Adam as the report's framework (Keras 2.3 in TensorFlow 2.2) defines them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from evonorm.lab.config import TrainConfig

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-7


class KerasOptimizer(torch.optim.Optimizer):
    """What both share: per batch t = 0, 1, ..., rate_t = learning_rate / (1 + decay * t), and clipping of each tensor.

    clip_norm: gradients of a larger norm are scaled to it, each tensor on its own.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        learning_rate: float,
        decay: float = 0.0,
        clip_norm: float | None = None,
        **own: float,
    ) -> None:
        self.clip_norm = clip_norm
        super().__init__(parameters, {"learning_rate": learning_rate, "decay": decay, "iterations": 0, **own})

    def learning_rate(self) -> float:
        """rate_t of the next batch."""
        group = self.param_groups[0]
        return float(group["learning_rate"] / (1 + group["decay"] * group["iterations"]))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [self._clipped(p.grad) for p in parameters]
            if parameters:
                self._update(group, parameters, gradients)
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

    def _update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        raise NotImplementedError


class SGD(KerasOptimizer):
    """velocity = momentum * velocity - rate_t * gradient; parameter += velocity.

    The rate is inside the velocity, unlike torch.optim.SGD; they differ once the rate changes.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        learning_rate: float = 1e-2,
        momentum: float = 0.9,
        decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(parameters, learning_rate=learning_rate, decay=decay, clip_norm=clip_norm, momentum=momentum)

    def _update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        velocity = self._slots(parameters, "velocity")
        torch._foreach_mul_(velocity, group["momentum"])
        torch._foreach_add_(velocity, gradients, alpha=-self.learning_rate())
        torch._foreach_add_(parameters, velocity)


class Adam(KerasOptimizer):
    """m, v: running means of gradient and its square (betas 0.9, 0.999); with T = t + 1,

    parameter -= rate_t * sqrt(1 - beta2^T) / (1 - beta1^T) * m / (sqrt(v) + epsilon): the paper's "epsilon hat".
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        learning_rate: float = 1e-3,
        decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(parameters, learning_rate=learning_rate, decay=decay, clip_norm=clip_norm)

    def _update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        beta1, beta2 = ADAM_BETAS
        step = group["iterations"] + 1
        rate = self.learning_rate() * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        mean, square = self._slots(parameters, "mean"), self._slots(parameters, "square")
        torch._foreach_lerp_(mean, gradients, 1 - beta1)
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - beta2)
        scale = torch._foreach_sqrt(square)
        torch._foreach_add_(scale, ADAM_EPSILON)
        torch._foreach_addcdiv_(parameters, mean, scale, -rate)


def make(config: TrainConfig, parameters: Iterable[Tensor]) -> KerasOptimizer:
    """The optimizer of a resolved config."""
    assert None not in (config.learning_rate, config.decay), "the config is not resolved"
    rates = {"learning_rate": config.learning_rate or 0.0, "decay": config.decay or 0.0}
    if config.optimizer == "adam":
        return Adam(parameters, **rates, clip_norm=config.clip_norm)
    return SGD(parameters, **rates, momentum=config.momentum, clip_norm=config.clip_norm)
