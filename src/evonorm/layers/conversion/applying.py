"""Puts the new layers into a copy of the model, and takes the activations out that they contain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from evonorm.layers.conversion.kinds import norm_of
from evonorm.layers.conversion.policies import Policy, Site
from evonorm.layers.conversion.rewriting import Edit, edited
from evonorm.layers.conversion.tracing import copied
from evonorm.layers.modules import NormActivation

_CARRIED = ("weight", "bias", "v", "tau", "running_mean", "running_var")
_HOOKS = tuple(name for name in vars(nn.Module()) if "hooks" in name and "state_dict" not in name)


def apply(model: nn.Module, sites: Iterable[Site], policy: Policy) -> nn.Module:
    """A copy of `model` with the sites' decisions carried out. Raises ValueError if `model` is not the planned one."""
    sites = [site for site in sites if site.replaced]
    _check(model, sites)
    result = copied(model)
    modules = dict(result.named_modules())
    new: dict[int, nn.Module] = {}
    edits: dict[str, set[Edit]] = defaultdict(set)
    for site in sites:
        new[id(modules[site.name])] = new_layer(modules[site.name], site, policy)
        for removal in site.removals:
            target = modules[removal.target]
            if removal.edit is not None:
                edits[removal.target].add(removal.edit)
            elif removal.key is not None:
                target._modules[removal.key] = _identity(target._modules[removal.key])
            elif id(target) not in new:
                new[id(target)] = _identity(target)
        if site.conv is not None:
            _add_bias(modules[site.conv])
    for module in modules.values():
        norm = norm_of(module)
        if id(module) in new and norm is not None and norm.activation is None and norm.layer is None:
            # What a plain norm merely holds, others call.
            for key, child in module.named_children():
                new[id(module)].add_module(key, new.get(id(child), child))
    if id(result) in new:
        return new[id(result)]
    for module in modules.values():
        for key, child in module._modules.items():
            if child is not None and id(child) in new:
                module._modules[key] = new[id(child)]
    for owner, removed in edits.items():
        edited(modules[owner], tuple(removed))
    return result


def _check(model: nn.Module, sites: list[Site]) -> None:
    modules = dict(model.named_modules())
    again = "; make a plan of this model with evonorm.plan"
    for site in sites:
        if site.name not in modules:
            raise ValueError(f"the plan replaces {site.name}, which {type(model).__name__} does not have{again}")
        norm = norm_of(modules[site.name])
        kind = type(modules[site.name]).__name__
        if norm is None or kind != site.norm or norm.channels != site.channels:
            here = kind if norm is None else f"{kind}({norm.channels})"
            raise ValueError(f"the plan replaces {site.name} as {site.norm}({site.channels}), here it is {here}{again}")
        for removal in site.removals:
            target = modules.get(removal.target)
            if target is None or (removal.key is not None and removal.key not in target._modules):
                raise ValueError(f"the plan switches off {removal}, which {type(model).__name__} does not have{again}")
        if site.conv is not None and site.conv not in modules:
            raise ValueError(f"the plan gives {site.conv} a bias, which {type(model).__name__} does not have{again}")


def new_layer(old: Any, site: Site, policy: Policy) -> NormActivation:
    """The new layer, with the old one's tensors themselves, so that what was shared stays shared."""
    like = next(
        (t for t in (*old.parameters(recurse=False), *old.buffers(recurse=False)) if t.is_floating_point()), None
    )
    layer = NormActivation(
        site.channels,
        site.layer or str(policy.layer),
        groups=site.groups,
        activate=site.activate,
        eps=site.eps,
        momentum=site.momentum,
        backend=policy.backend,
        sync=site.sync,
        device=like.device if like is not None else None,
        dtype=like.dtype if like is not None else None,
    )
    with torch.no_grad():
        for name in _CARRIED:
            ours, theirs = getattr(layer, name), getattr(old, name, None)
            if ours is None or not isinstance(theirs, Tensor):
                continue
            if policy.start == "fresh":
                theirs.copy_(ours)
            if isinstance(ours, nn.Parameter) and not isinstance(theirs, nn.Parameter):
                theirs = nn.Parameter(theirs, requires_grad=False)  # FrozenBatchNorm's weight is a buffer
            setattr(layer, name, theirs)
    # What the old layer has not, v and tau as a rule, goes with its weight.
    trainable = policy.trainable
    if trainable is None:
        trainable = layer.weight is None or layer.weight.requires_grad
    for name, parameter in layer.named_parameters():
        if policy.trainable is not None or not isinstance(getattr(old, name, None), Tensor):
            parameter.requires_grad_(trainable)
    take_over(layer, old)
    return layer


def _identity(old: Any) -> nn.Identity:
    identity = nn.Identity()
    take_over(identity, old)
    return identity


def take_over(new: nn.Module, old: nn.Module) -> None:
    """Training mode and hooks."""
    new.train(old.training)
    for name in _HOOKS:
        new.__dict__[name] = old.__dict__[name]


def _add_bias(conv: Any) -> None:
    if conv.bias is None:
        conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels), requires_grad=conv.weight.requires_grad)
