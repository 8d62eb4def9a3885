"""Which tensor of a diverged step went non-finite first, how large things were before it, and why."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evonorm.layers.modules import NormActivation

# Beyond this, squares and sums of float32 are about to overflow (largest float32: 3.4e38).
HUGE = 1e15


@dataclass(frozen=True)
class Diagnosis:
    """kind and tensor: what went non-finite first. magnitudes: largest |output| of each module before it, in order."""

    kind: Literal["parameter", "forward", "loss", "gradient", "not reproduced"]
    tensor: str
    cause: str
    magnitudes: list[dict[str, Any]] = field(default_factory=list)


def diagnose(model: nn.Module, loss_of: Callable[[nn.Module], Tensor]) -> Diagnosis:
    """Replays one step on a copy of the model, watching every tensor.

    model: in the state before the step. loss_of: forward pass and loss of the step's batch, with its random state.
    """
    model = copy.deepcopy(model)
    model.zero_grad(set_to_none=True)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not _finite(value):
            cause = (
                f"{name} was already non-finite before this step: the update before it overflowed. "
                "Lower the learning rate, or clip gradients (clip_norm)."
            )
            return Diagnosis("parameter", name, cause)

    watch = _Watch(model)
    loss = loss_of(model)
    if watch.first_forward is not None:
        name, module = watch.first_forward
        return Diagnosis("forward", name, _forward_cause(name, module, watch.magnitudes), watch.magnitudes)
    if not _finite(loss):
        cause = f"Every activation was finite, but the loss was not: the logits reached {watch.largest():.3g}."
        return Diagnosis("loss", "loss", f"{cause} Lower the learning rate.", watch.magnitudes)

    loss.backward()  # type: ignore[no-untyped-call]
    if watch.first_gradient is not None:
        return Diagnosis("gradient", watch.first_gradient, _gradient_cause(watch), watch.magnitudes)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not _finite(parameter.grad):
            watch.first_gradient = name
            return Diagnosis("gradient", name, _gradient_cause(watch), watch.magnitudes)
    cause = "Replaying the step gave finite numbers throughout: the fault is not in the step's state."
    return Diagnosis("not reproduced", "none", cause, watch.magnitudes)


class _Watch:
    """Hooks on every leaf module: its largest output, the first non-finite output, the first non-finite gradient."""

    def __init__(self, model: nn.Module) -> None:
        self.magnitudes: list[dict[str, Any]] = []
        self.first_forward: tuple[str, nn.Module] | None = None
        self.first_gradient: str | None = None
        for name, module in model.named_modules():
            if not list(module.children()):
                module.register_forward_hook(self._forward_hook(name))

    def largest(self) -> float:
        """Largest |output| of the last module before the fault."""
        return float(self.magnitudes[-1]["largest"]) if self.magnitudes else 0.0

    def _forward_hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if self.first_forward is not None or not isinstance(output, Tensor):
                return
            if not _finite(output):
                self.first_forward = name, module
                return
            self.magnitudes.append({"module": name, "largest": float(output.detach().abs().max())})
            if output.requires_grad:
                seen = f"gradient of {name}'s output"
                output.register_hook(lambda gradient: self._see_gradient(seen, gradient))  # type: ignore[no-untyped-call]

        return hook

    def _see_gradient(self, name: str, gradient: Tensor) -> None:
        if self.first_gradient is None and not _finite(gradient):
            self.first_gradient = name


def _forward_cause(name: str, module: nn.Module, magnitudes: list[dict[str, Any]]) -> str:
    largest = max((entry["largest"] for entry in magnitudes), default=0.0)
    if largest > HUGE:
        peak = max(magnitudes, key=lambda entry: float(entry["largest"]))["module"]
        return (
            f"Activations grew to {largest:.3g} at {peak} before {name} overflowed: "
            "lower the learning rate, clip gradients (clip_norm), or use a layer that normalizes."
        )
    if isinstance(module, NormActivation):
        return (
            f"{name} ({module.layer}) divided by a statistic that came out zero or infinite, with inputs up to "
            f"{largest:.3g}: raise its epsilon (norm_eps), or use precision fp32."
        )
    return (
        f"{name} overflowed on finite inputs up to {largest:.3g}, so its weights are too large: "
        "lower the learning rate, or clip gradients (clip_norm)."
    )


def _gradient_cause(watch: _Watch) -> str:
    largest = max((entry["largest"] for entry in watch.magnitudes), default=0.0)
    return (
        f"The forward pass was finite (activations up to {largest:.3g}), but going backward {watch.first_gradient} "
        "was not: lower the learning rate, clip gradients (clip_norm), or use precision fp32."
    )


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value.detach()).all())
