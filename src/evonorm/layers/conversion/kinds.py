"""What counts as a normalization, told by class, and what it is like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin

from evonorm.layers.conversion.activations import activation_label
from evonorm.layers.conversion.fused import inside
from evonorm.layers.modules import NormActivation


@dataclass(frozen=True)
class Norm:
    """A normalization as found: kind is its class, family what its statistics range over.

    activation: label of the activation inside it (timm's BatchNormAct2d), if any; OWN where that is part of the
    layer's formula. layer: the row of the table that it is, if it is one of timm's. reason: why it cannot be replaced,
    or None if it can.
    """

    kind: str
    family: str
    channels: int = 0
    eps: float = 1e-5
    momentum: float | None = None
    groups: int | None = None
    sync: bool = False
    tracks: bool = True
    activation: str | None = None
    layer: str | None = None
    reason: str | None = None


OWN = "own activation"
FROZEN = {"weight", "bias", "running_mean", "running_var"}
_LAYER_NORMS = tuple(
    kind for name in ("LayerNorm", "RMSNorm", "LocalResponseNorm") if (kind := getattr(nn, name, None)) is not None
)
_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_PARAMETRIZED = "it has parametrizations, which a NormActivation does not take over"
_TIMM = ("timm.layers.evo_norm", "timm.layers.filter_response_norm")
_TIMMS = {f"EvoNorm2d{kind}": f"evonorm-{kind.lower()}" for kind in ("B0", "B1", "B2", "S0", "S1", "S2")}
_TIMMS |= {f"EvoNorm2d{kind}": f"evonorm-{kind.lower()}" for kind in ("S0a", "S1a", "S2a")}
_TIMMS |= {"FilterResponseNormTlu2d": "frn-tlu"}
_FUNCTIONS = (F.batch_norm, F.group_norm, F.instance_norm, F.layer_norm, torch.batch_norm, torch.group_norm)


def norm_of(module: nn.Module) -> Norm | None:
    """What `module` is as a normalization, or None if it is none."""
    kind = type(module).__name__
    if isinstance(module, NormActivation):
        return Norm(kind, "own", module.channels, reason="a NormActivation already")
    if isinstance(module, _BatchNorm | nn.GroupNorm | _InstanceNorm):
        return _known(module, kind)
    if _is_frozen(module):
        return _frozen(module, kind)
    if isinstance(module, _LAYER_NORMS):
        return Norm(kind, "other", reason="its statistics are not those of a feature map's channels")
    if (layer := timms_layer(module)) is not None:
        return _timms(module, kind, layer)
    if "norm" in kind.lower() and {name for name, _ in module.named_children()} <= {"act", "drop"}:
        return Norm(kind, "other", reason="a normalization that this converter does not know")
    return None


def timms_layer(module: nn.Module) -> str | None:
    """The name of the layer of the table that this module of timm's is, or None. timm is not imported."""
    kind = type(module)
    return _TIMMS.get(kind.__name__) if kind.__module__ in _TIMM else None


def _known(module: Any, kind: str) -> Norm:
    family = {nn.GroupNorm: "group", _InstanceNorm: "instance"}
    name = next((value for key, value in family.items() if isinstance(module, key)), "batch")
    channels = module.num_channels if name == "group" else module.num_features
    activation, reason = inside(module)
    if isinstance(module, LazyModuleMixin):
        reason = "it does not know its channels yet; run the model once before planning"
    elif hasattr(module, "parametrizations"):
        reason = _PARAMETRIZED
    return Norm(
        kind,
        name,
        channels,
        eps=module.eps,
        momentum=getattr(module, "momentum", None),
        groups=module.num_groups if name == "group" else None,
        sync=isinstance(module, nn.SyncBatchNorm),
        tracks=bool(getattr(module, "track_running_stats", False)),
        activation=activation,
        reason=reason,
    )


def _timms(module: Any, kind: str, layer: str) -> Norm:
    act = getattr(module, "act", None)
    activation = activation_label(act) if act is not None else None
    held = act is not None and activation is None and not isinstance(act, nn.Identity)
    reason = f"it holds {type(act).__name__}, which is no activation that can be taken over" if held else None
    if activation is None and reason is None and module.apply_act:
        activation = OWN
    return Norm(
        kind,
        "timm",
        module.weight.numel(),
        eps=module.eps,
        momentum=getattr(module, "momentum", None),
        groups=getattr(module, "groups", None),
        activation=activation,
        layer=layer,
        reason=_PARAMETRIZED if hasattr(module, "parametrizations") else reason,
    )


def _is_frozen(module: nn.Module) -> bool:
    """Batch normalization with everything constant, as torchvision's and timm's FrozenBatchNorm: four buffers."""
    return {name for name, _ in module.named_buffers(recurse=False)} == FROZEN and not any(
        True for _ in module.parameters()
    )


def _frozen(module: Any, kind: str) -> Norm:
    activation, reason = inside(module)
    channels = module.running_mean.numel()
    return Norm(kind, "frozen", channels, eps=getattr(module, "eps", 1e-5), activation=activation, reason=reason)


def is_norm_function(target: Any) -> bool:
    """Whether a function of torch normalizes, also as an operator of an exported graph."""
    operator = getattr(target, "overloadpacket", None)
    return any(target is f or getattr(operator, "__name__", "") == f.__name__ for f in _FUNCTIONS)
