"""What counts as an activation: told by behaviour."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_NAMED = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "silu": "SiLU",
    "hardswish": "Hardswish",
    "gelu": "GELU",
    "mish": "Mish",
} | {
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "selu": "SELU",
    "celu": "CELU",
    "rrelu": "RReLU",
}
_FUNCTIONAL: dict[Any, str] = {
    function: label
    for name, label in _NAMED.items()
    for home in (F, torch, torch.ops.aten)
    for spelling in (name, f"{name}_")
    if (function := getattr(home, spelling, None)) is not None
}


def activation_label(module: nn.Module) -> str | None:
    """The class name of a module that is an activation, else None.

    An activation acts on each value alone, is not linear and not bounded by 1 (Sigmoid and Tanh are gates): this is
    tried on numbers, so that activations of any library are known.
    """
    if isinstance(module, nn.PReLU):
        return "PReLU"
    if any(True for _ in module.children()) or any(True for _ in module.parameters()):
        return None
    return type(module).__name__ if _probe(module)[0] else None


def function_label(target: Any) -> str | None:
    """The label of a function or a method's name that is an activation, else None."""
    if isinstance(target, str):
        return _NAMED.get(target.removesuffix("_")) if target.removesuffix("_") in ("relu",) else None
    try:
        return _FUNCTIONAL.get(target)
    except TypeError:  # not hashable, so none of ours
        return None


def writes_in_place(module: nn.Module) -> bool:
    """Whether an activation module overwrites its input."""
    return not isinstance(module, nn.PReLU) and _probe(module)[1]


def _probe(module: nn.Module) -> tuple[bool, bool]:
    """Whether the module is an activation, and whether it works in place: (is one, in place)."""
    # The caller may be building models on another device.
    with torch.device("cpu"), torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float32) * 4
        order = torch.randperm(x.numel(), generator=generator)
        given = x.clone()
        try:
            trial = copy.deepcopy(module).eval()
            # forward, not the call: the hooks are the user's and are not to see these numbers.
            y = trial.forward(given)
            shuffled = trial.forward(x.flatten()[order].view_as(x).clone())
            ends = trial.forward(torch.tensor([-30.0, -1.0, 0.0, 1.0, 30.0]).view(1, 5, 1, 1)).flatten()
        except Exception:  # it takes other inputs, so it is no activation
            return False, False
        if not isinstance(y, torch.Tensor) or y.shape != x.shape:
            return False, False
        elementwise = torch.allclose(y.flatten()[order].view_as(x), shuffled, atol=1e-5)
        slopes = ends.diff() / torch.tensor([29.0, 1.0, 1.0, 29.0])
        linear = torch.allclose(slopes, slopes[:1], atol=1e-4)
        return elementwise and not linear and bool(ends[-1] > 1.5), not torch.equal(given, x)
