"""timm's own EvoNorm and FRN modules become ours, name by name, so that its checkpoints keep loading."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from evonorm.layers.conversion.applying import take_over
from evonorm.layers.conversion.kinds import timms_layer
from evonorm.layers.functional import Backend
from evonorm.layers.modules import NormActivation

_NAMES = ("weight", "bias", "v", "tau", "running_var")


def from_timm(model: nn.Module, *, backend: Backend = "auto") -> nn.Module:
    """A new model with NormActivation in the place of timm's EvoNorm2d* and FilterResponseNormTlu2d modules.

    Same values, same groups, epsilon and momentum, with or without activation, as each module has them; the same
    names, so that a state_dict of timm's loads strictly, and ours into timm's model. The given model is untouched and
    no other module replaced. Outputs and gradients are timm's to rounding. One thing differs: in training a running
    variance (the B layers) blends the batch's biased variance, timm's the unbiased one. backend: as in NormActivation.

    Raises ValueError if the model has no such module, or one with an activation other than SiLU inside.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module: got {type(model).__name__}")
    result = copy.deepcopy(model)
    new = {id(m): _layer(name, m, layer, backend) for name, m in result.named_modules() if (layer := timms_layer(m))}
    if not new:
        raise ValueError(
            f"{type(model).__name__} has none of timm's EvoNorm2d* or FilterResponseNormTlu2d; "
            "evonorm.convert(model, ...) puts our layers in the place of BatchNorm and GroupNorm"
        )
    if id(result) in new:
        return new[id(result)]
    for module in list(result.modules()):
        for key, child in module._modules.items():
            if child is not None and id(child) in new:
                module._modules[key] = new[id(child)]
    return result


def _layer(name: str, old: Any, layer: str, backend: Backend) -> NormActivation:
    act = getattr(old, "act", None)
    if old.apply_act and act is not None and type(act).__name__ != "SiLU":
        kind = type(old).__name__
        raise ValueError(f"{name or 'the model'} is {kind} with {type(act).__name__} inside; {layer} has SiLU alone")
    try:
        new = NormActivation(
            old.weight.numel(),
            layer,
            groups=getattr(old, "groups", 1),
            activate=old.apply_act,
            eps=old.eps,
            momentum=getattr(old, "momentum", 0.1),
            backend=backend,
            device="meta",
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    for key in _NAMES:
        # timm keeps a running variance also where the activation, and with it the normalization, is off.
        if (value := getattr(old, key, None)) is not None:
            setattr(new, key, value)
    take_over(new, old)
    return new
