"""Activations written out in operations, as x * sigmoid(x) or x.clamp(min=0): told by the numbers that they give."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

# What such a formula is made of. Nothing here draws numbers or depends on the mode.
_NAMES = """
    add sub mul div truediv pow square neg abs gt ge lt le maximum minimum max min clamp clamp_min clamp_max where
    zeros_like ones_like sigmoid tanh exp erf log1p softplus logsigmoid relu relu6 hardtanh hardsigmoid threshold
    leaky_relu elu silu hardswish mish gelu
"""
_OPERATIONS = frozenset(_NAMES.split())
_MOST_OPERATIONS = 12
_KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": F.relu,
    "ReLU6": F.relu6,
    "SiLU": F.silu,
    "Hardswish": F.hardswish,
    "GELU": F.gelu,
    "GELU (tanh)": lambda x: F.gelu(x, approximate="tanh"),
    "GELU (sigmoid)": lambda x: x * torch.sigmoid(1.702 * x),
    "Mish": F.mish,
}

Step = tuple[fx.Node, int | str]


def find(source: fx.Node, modules: Mapping[fx.Node, nn.Module]) -> tuple[str, fx.Node] | None:
    """The label of the activation that operations on `source` alone amount to, and the operation that ends it.

    Nothing else reads `source` or a value between. modules: of the calls of modules. None if there is none.
    """
    inside = [source]
    while len(inside) <= _MOST_OPERATIONS:
        readers = dict.fromkeys(user for one in inside for user in one.users if user not in inside)
        ready = (r for r in readers if set(r.all_input_nodes) <= set(inside) and _is_plain(r, modules))
        if (node := next(ready, None)) is None:
            return None
        inside.append(node)
        closed = all(user in inside for one in inside[:-1] for user in one.users)
        if closed and (label := label_of(inside[1:], source, modules)) is not None:
            return label, node
    return None


def label_of(nodes: Sequence[fx.Node], source: fx.Node, modules: Mapping[fx.Node, nn.Module]) -> str | None:
    """Which activation of `source` the last of `nodes` is, in numbers; None if none that is known."""
    if not all(_is_plain(node, modules, in_place=len(nodes) == 1) for node in nodes):
        return None
    # The caller may be building models on another device.
    with torch.device("cpu"), torch.no_grad():
        x = torch.linspace(-12, 12, 2 * 3 * 11 * 7, dtype=torch.float64)
        x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))].view(2, 3, 11, 7)
        values = {source: x.clone()}
        try:
            for node in nodes:
                values[node] = _run(node, values, modules)
        except Exception:  # it takes other numbers, or other shapes
            return None
        y = values[nodes[-1]]
        if not isinstance(y, Tensor) or y.shape != x.shape or not y.is_floating_point():
            return None
        return next((label for label, known in _KNOWN.items() if _same(y, known(x))), _leaky(x, y))


def chains(end: fx.Node, source: fx.Node) -> Iterator[list[Step]]:
    """Every way from an operation down to the `source` that it reads: operations and places of arguments."""
    places: list[tuple[int | str, Any]] = [*enumerate(end.args), *end.kwargs.items()]
    for place, value in places:
        if value is source:
            yield [(end, place)]
        elif isinstance(value, fx.Node) and source in _before(value):
            yield from ([(end, place), *rest] for rest in chains(value, source))


def _is_plain(node: fx.Node, modules: Mapping[fx.Node, nn.Module], *, in_place: bool = False) -> bool:
    if node.op == "call_module":
        # torch's own without parameters, as nn.Sigmoid in x * self.sigmoid(x).
        module = modules[node]
        return type(module).__module__ == "torch.nn.modules.activation" and not [*module.parameters()]
    target: Any = node.target
    if node.op == "call_method":
        name = str(target)
    elif node.op == "call_function":
        name = str(getattr(target, "__name__", ""))
        if not any(getattr(home, name, None) is target for home in (operator, torch, F)):
            return False
    else:
        return False
    if name.endswith("_") or node.kwargs.get("inplace"):
        return in_place and name.removesuffix("_") in _OPERATIONS
    return name in _OPERATIONS


def _run(node: fx.Node, values: Mapping[fx.Node, Any], modules: Mapping[fx.Node, nn.Module]) -> Any:
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda one: values[one])
    target: Any = node.target
    if node.op == "call_module":
        # forward, not the call: the hooks are the user's and are not to see these numbers.
        return modules[node].forward(*(a.clone() if isinstance(a, Tensor) else a for a in args), **kwargs)
    return getattr(args[0], target)(*args[1:], **kwargs) if node.op == "call_method" else target(*args, **kwargs)


def _leaky(x: Tensor, y: Tensor) -> str | None:
    slope = float(y.min() / x.min())
    return "LeakyReLU" if 0 < slope < 1 and _same(y, F.leaky_relu(x, slope)) else None


def _same(y: Tensor, known: Tensor) -> bool:
    """Constants are written with some digits only."""
    return torch.allclose(y, known, atol=1e-4)


def _before(node: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        for one in waiting.pop().all_input_nodes:
            if one not in found:
                found.add(one)
                waiting.append(one)
    return found
