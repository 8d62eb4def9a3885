"""Networks by name: ours, torchvision's and timm's image classifiers, fitted to small images, with any of our layers.

build(name, classes, layer) takes the architecture alone, never trained weights, and asks no network for anything.
"""

from __future__ import annotations

import torch
from torch import nn

from evonorm.layers import table
from evonorm.layers.conversion import Plan, plan
from evonorm.layers.conversion.policies import Without
from evonorm.layers.functional import Backend
from evonorm.layers.modules import NormActivation
from evonorm.models import names, stem
from evonorm.models.mini_inception import DROPOUT, MiniInception
from evonorm.models.seeding import seeded

# Classifiers that return several logits when training, unless told not to.
_ONE_OUTPUT = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def build(
    name: str,
    classes: int,
    layer: str = "evonorm-s0",
    *,
    groups: int = 32,
    eps: float | None = None,
    momentum: float = 0.1,
    backend: Backend = "auto",
    plain_norms: Without = "keep",
    dropout: float | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """The network called `name` with `layer` at every site: (N, 3, 32, 32) -> logits (N, classes).

    name: `mini-inception`; the name of a classifier of torchvision, `torchvision:` before it or not; or `timm:` and
    the name of one of timm's. Theirs start with random weights by their own rule, get a stem for small images (see
    stem.fit), and are converted as evonorm.convert does it: a site is a normalization with the activation that follows
    it. plain_norms: what becomes of the others, convert's without_activation; `keep` leaves them.

    layer, groups, eps, backend: as in NormActivation, backend of the layers with activation; the largest divisor of a
    width where groups does not divide it.
    momentum: of all running statistics, those of norms that are kept too. dropout: before the classifier; default
    0.5 in mini-inception, their own in the others. generator: source of the initial weights, which are the same
    whatever the layer; default: torch's own.

    Raises ValueError if there is no such classifier, it does not take such images, or it has no site.
    """
    found = names.find(name, classifiers=True)
    name = str(found)
    if name == names.MINI_INCEPTION:
        return MiniInception(
            classes,
            layer,
            groups=groups,
            eps=eps,
            momentum=momentum,
            dropout=DROPOUT if dropout is None else dropout,
            backend=backend,
            generator=generator,
        )
    with seeded(generator):
        model = _original(found, classes, dropout)
        stem.fit(model)
    planned = plan(
        model,
        layer,
        groups=groups,
        eps=eps,
        momentum=momentum,
        backend=backend,
        without_activation=plain_norms,
    )
    if not planned.replaced:
        raise ValueError(_without_site(name, planned))
    model = planned.apply()
    for module in model.modules():
        # Theirs may average over thousands of batches, as MnasNet's 3e-4 does.
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = momentum
        # No kernel serves these.
        if isinstance(module, NormActivation) and not module.activate:
            module.backend = "reference"
    _check_logits(name, model, classes)
    return model


def known(name: str) -> str:
    """`name` in the one way it is written, torchvision's without prefix. ValueError if it names no classifier."""
    return str(names.find(name, classifiers=True))


def groups_in_force(model: nn.Module) -> dict[int, int]:
    """Width -> groups at every width where a layer takes group statistics; empty for other layers."""
    sites = [module for module in model.modules() if isinstance(module, NormActivation) and module.grouped]
    # An EvoNorm without its activation is affine alone.
    return {site.channels: site.groups for site in sites if site.activate or table.get(site.layer).native}


def _original(name: names.Name, classes: int, dropout: float | None) -> nn.Module:
    if name.library == "timm":
        return name.create(num_classes=classes, **({} if dropout is None else {"drop_rate": dropout}))
    model = name.create(num_classes=classes, **_ONE_OUTPUT.get(name.own, {}))
    if dropout is not None:
        _set_dropout(model, dropout)
    return model


def _set_dropout(model: nn.Module, dropout: float) -> None:
    """At the model's own dropouts or, if it has none, before its last linear layer."""
    own = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for module in own:
        module.p = dropout
    if not own:
        last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
        model.set_submodule(last, nn.Sequential(nn.Dropout(dropout), model.get_submodule(last)))


@torch.no_grad()
def _check_logits(name: str, model: nn.Module, classes: int) -> None:
    was_training = model.training
    try:
        logits = model.eval()(torch.zeros(1, 3, stem.SIZE, stem.SIZE))
    except Exception as error:
        raise ValueError(f"{name} does not take {stem.SIZE}x{stem.SIZE} pixels: {_first_line(error)}") from error
    model.train(was_training)
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, classes):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"{name} is no image classifier: for an image and {classes} classes it returns {found}")


def _without_site(name: str, planned: Plan) -> str:
    if not planned.sites:
        return f"{name} has no normalization that a layer could replace; choose another model"
    first = planned.sites[0]
    plain = any(site.what == f"kept: {site.follows}" for site in planned.sites)
    more = ", or replace norms that no activation follows too (plain_norms=affine or replace)" if plain else ""
    return (
        f"none of the {len(planned.sites)} normalizations of {name} can be replaced with its activation: "
        f"{first.name}, a {first.norm}, is {first.what}; choose another model{more}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
