"""Which activation a normalization contains: told by what its forward does with numbers, not by children's names."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from evonorm.layers.conversion.activations import activation_label

_KNOWN = (_BatchNorm, nn.GroupNorm, _InstanceNorm)
Inside = tuple[str | None, str | None]
_SEEN: dict[Any, Inside] = {}


def inside(module: nn.Module) -> Inside:
    """The label of the activation that a norm applies itself, and why it cannot be replaced; None where there is none.

    A norm with torch's own forward applies nothing that it holds. Another's is tried on numbers: what is called last,
    on the plain normalization alone, and gives the output, is its activation.
    """
    if str(type(module).forward.__module__).startswith("torch.nn.modules."):
        return None, None
    children = tuple((name, repr(child)) for name, child in module.named_children())
    key = type(module), children, getattr(module, "track_running_stats", None)
    if key not in _SEEN:
        try:
            with torch.device("cpu"), torch.no_grad(), warnings.catch_warnings(action="ignore"):
                _SEEN[key] = _tried(module)
        except Exception:  # it takes other inputs
            _SEEN[key] = None, _own(module)
    return _SEEN[key]


def _tried(module: nn.Module) -> Inside:
    trial = _copy(module)
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []
    for child in trial.children():
        given: list[Tensor] = []  # before the child, which may overwrite it
        child.register_forward_pre_hook(lambda _, args, given=given: given.append(args[0].clone()))
        child.register_forward_hook(lambda child, _, y, given=given: calls.append((child, given.pop(), y.clone())))
    channels = trial.num_channels if isinstance(trial, nn.GroupNorm) else _first(trial).numel()
    x = torch.randn(2, channels, *_space(trial), generator=torch.Generator().manual_seed(0)) * 2 + 0.3
    plain = _plain(trial, x)
    y = trial.forward(x.clone())
    if not calls:
        # Who writes another forward for a norm of torch's has a reason, which these numbers may not show.
        same = not isinstance(module, _KNOWN) and torch.allclose(y, plain, atol=1e-4)
        return None, None if same else _own(module)
    acting = [call for call in calls if not isinstance(call[0], nn.Identity)]
    held = [name for name, child in trial.named_children() if not any(child is call[0] for call in calls)]
    if held:
        return None, f"it holds {', '.join(held)}, which would be lost"
    if not acting:
        return None, None if torch.allclose(y, plain, atol=1e-4) else _own(module)
    (first, before, _), (last, _, result) = acting[0], acting[-1]
    if not torch.allclose(before, plain, atol=1e-4) or not torch.equal(result, y):
        return None, _own(module)
    if len(acting) > 1:
        return None, f"{type(first).__name__} lies between it and its activation"
    label = activation_label(last)
    return label, None if label else f"it holds {type(last).__name__}, which is no activation that can be taken over"


def _own(module: nn.Module) -> str:
    return f"{type(module).__name__} has a forward of its own, which may do more than normalize"


def _copy(module: nn.Module) -> Any:
    """In evaluation, on the CPU, with numbers of ours and nobody's hooks."""
    memo: dict[int, Any] = {id(p): nn.Parameter(torch.full(p.shape, 0.9)) for p in module.parameters()}
    memo |= {id(b): torch.full(b.shape, 1.1).to(b.dtype) for b in module.buffers()}
    trial = copy.deepcopy(module, memo).eval()
    for part in trial.modules():
        for name in ("_forward_hooks", "_forward_pre_hooks"):
            setattr(part, name, OrderedDict())
    return trial


def _first(module: nn.Module) -> Tensor:
    return next(t for t in (*module.parameters(False), *module.buffers(False)) if t.dim() == 1)


def _space(module: nn.Module) -> tuple[int, ...]:
    name = type(module).__mro__
    dimensions = next((n for n in (1, 2, 3) if any(kind.__name__.endswith(f"{n}d") for kind in name)), 2)
    return (4,) * dimensions


def _plain(module: Any, x: Tensor) -> Tensor:
    weight, bias, eps = getattr(module, "weight", None), getattr(module, "bias", None), getattr(module, "eps", 1e-5)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, weight, bias, eps)
    if isinstance(module, _InstanceNorm):
        return F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    mean, var = module.running_mean, module.running_var
    return F.batch_norm(x, mean, var, weight, bias, training=mean is None, eps=eps)
