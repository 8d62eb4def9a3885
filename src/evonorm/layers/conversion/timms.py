"""timm's own EvoNorm and FRN modules become ours, name by name, so that its checkpoints keep loading."""

from __future__ import annotations

import copy

from torch import nn

from evonorm.layers.conversion.applying import new_layer
from evonorm.layers.conversion.kinds import OWN, norm_of, timms_layer
from evonorm.layers.conversion.policies import Policy, Site
from evonorm.layers.functional import Backend
from evonorm.layers.modules import NormActivation


def from_timm(model: nn.Module, *, backend: Backend = "auto") -> nn.Module:
    """A new model with NormActivation in the place of timm's EvoNorm2d* and FilterResponseNormTlu2d modules.

    Same values, same groups, epsilon and momentum, with or without activation, as each module has them; the same
    names, so that a state_dict of timm's loads strictly, and ours into timm's model. The given model is untouched and
    no other module replaced. Outputs and gradients are timm's to rounding. One thing differs: in training a running
    variance (the B layers) blends the batch's biased variance, timm's the unbiased one. backend: as in NormActivation.

    evonorm.convert puts other layers in the same places. Raises ValueError if the model has no such module, or one
    with an activation other than SiLU inside.
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


def _layer(name: str, old: nn.Module, layer: str, backend: Backend) -> NormActivation:
    norm = norm_of(old)
    assert norm is not None
    if norm.activation not in (None, OWN, "SiLU"):
        raise ValueError(f"{name or 'the model'} is {norm.kind} with {norm.activation} inside; {layer} has SiLU alone")
    site = Site(
        *(name, norm.kind, norm.family, norm.channels, "", norm.activation, ""),
        activate=norm.activation is not None,
        groups=norm.groups or 1,
        eps=norm.eps,
        momentum=0.1 if norm.momentum is None else norm.momentum,
        layer=layer,
    )
    try:
        if norm.reason is not None:
            raise ValueError(norm.reason)
        new = new_layer(old, site, Policy(layer, backend=backend))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    # timm keeps a running variance also where the activation, and with it the normalization, is off.
    new.running_var = getattr(old, "running_var", None)
    return new
