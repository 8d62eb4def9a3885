"""Right before fast: y and every gradient against float64, within twice the same-dtype reference's own rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evonorm.lab.bench.cases import Case
from evonorm.layers import reference, table
from evonorm.layers.modules import NormActivation

SLACK = 1e-6
ELEMENTS = 2**20  # float64 and its graph stay quick
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Finding:
    """One tensor's largest error against float64, relative to its largest value or to 1, and what the gate allows."""

    tensor: str
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the error is within what is allowed; NaN is not."""
        return self.error <= self.allowed

    def __str__(self) -> str:
        return f"{self.tensor}: error {self.error:.3g}, allowed {self.allowed:.3g}"


@dataclass(frozen=True)
class Verdict:
    """What the gate found of one implementation on one case, and on how many samples."""

    findings: tuple[Finding, ...]
    batch: int

    @property
    def ok(self) -> bool:
        """Whether every tensor passed."""
        return all(finding.ok for finding in self.findings)

    def __str__(self) -> str:
        return "; ".join(str(finding) for finding in self.findings if not finding.ok) or "passed"

    def as_row(self) -> dict[str, Any]:
        """For the row of JSON."""
        errors = {f.tensor: {"error": f.error, "allowed": f.allowed} for f in self.findings}
        return {"ok": self.ok, "batch": self.batch, "errors": errors}


def check(module: nn.Module, case: Case, device: torch.device, *, training: bool, seed: int = 0) -> Verdict:
    """`module`, a NormActivation of this device, on the case's C, H, W and dtype with as many samples as stay quick.

    training: y, dx and every parameter's gradient for a random cotangent; else y alone, from the running statistics.
    The module's mode is set and its running statistics advance by a batch.
    """
    assert isinstance(module, NormActivation), "the gate is for layers of the table"
    assert module.momentum is not None, "what is measured blends by a fixed momentum"
    generator = torch.Generator(device).manual_seed(seed)
    channels, height, width = case.shape[1:]
    batch = min(case.shape[0], max(2, ELEMENTS // (channels * height * width)))
    x, dy = case.tensor(generator, batch=batch), case.tensor(generator, batch=batch)
    state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    setting = table.Setting(
        groups=module.groups, eps=module.eps, momentum=module.momentum, training=training, activate=module.activate
    )
    learned = [name for name, _ in module.named_parameters()]
    exact = _by_reference(module.layer, x.double(), dy.double(), _double(state), learned, setting)
    rounded = _by_reference(module.layer, x, dy, state, learned, setting)
    module.train(training)
    found = _tensors(module, x, dy, dict(module.named_parameters()), training=training)
    findings = []
    for name, truth in exact.items():
        allowed = 2 * _error(rounded[name], truth) + SLACK
        findings.append(Finding(name, _error(found[name], truth), allowed))
    return Verdict(tuple(findings), batch)


def randomize(module: nn.Module, seed: int = 0) -> None:
    """Parameters and running statistics off their initial values, where a mistake could hide; the same for one name."""
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if value.is_floating_point():
                generator = torch.Generator().manual_seed(seed)
                around = 0.0 if name in ("bias", "tau", "running_mean") else 1.0
                value.copy_(around + 0.4 * torch.rand(value.shape, generator=generator) - 0.2)


def _by_reference(
    layer: str, x: Tensor, dy: Tensor, state: Tensors, learned: list[str], setting: table.Setting
) -> Tensors:
    own = {name: value.clone().requires_grad_(name in learned) for name, value in state.items()}
    parameters: dict[str, Tensor | None] = {**own}

    def forward(x: Tensor) -> Tensor:
        return reference.evaluate(table.get(layer), x, parameters, setting)

    return _tensors(forward, x, dy, {name: own[name] for name in learned}, training=setting.training)


def _tensors(forward: Any, x: Tensor, dy: Tensor, parameters: Mapping[str, Tensor], *, training: bool) -> Tensors:
    if not training:
        with torch.inference_mode():
            return {"y": forward(x).clone()}
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = forward(leaf)
    gradients = torch.autograd.grad(y, [leaf, *parameters.values()], dy)
    names = ["dx", *(f"d{name}" for name in parameters)]
    return {"y": y.detach(), **dict(zip(names, gradients, strict=True))}


def _double(state: Tensors) -> Tensors:
    return {name: value.double() for name, value in state.items()}


def _error(found: Tensor, truth: Tensor) -> float:
    """Largest difference, relative to the largest value or to 1; infinite where shapes differ, NaN where a value is."""
    if found.shape != truth.shape:
        return float("inf")
    return float((found.double() - truth).abs().max() / truth.abs().max().clamp(min=1)) if truth.numel() else 0.0
