"""Models by name: which library has one, the one way to write its name, what is near a name that none has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from evonorm.models.mini_inception import MiniInception
from evonorm.spelling import meant

MINI_INCEPTION = "mini-inception"
TIMM = "timm:"


@dataclass(frozen=True)
class Name:
    """A model that there is. own: what its library calls it; library: torchvision, timm, or None for ours.

    As text `mini-inception`, torchvision's own name, or `timm:` and timm's.
    """

    own: str
    library: str | None

    def __str__(self) -> str:
        return TIMM + self.own if self.library == "timm" else self.own

    def create(self, **given: Any) -> nn.Module:
        """The model with random weights, by its library's rule. given: arguments of its constructor."""
        if self.library is None:
            return MiniInception(**given)
        home = _library(self.library)
        make: Callable[..., nn.Module] = home.create_model if self.library == "timm" else home.get_model
        if self.library == "timm":
            return make(self.own, pretrained=False, **given)
        if "weights_backbone" in inspect.signature(home.get_model_builder(self.own)).parameters:
            given["weights_backbone"] = None
        return make(self.own, weights=None, **given)


def find(name: str, *, classifiers: bool = False) -> Name:
    """The model called `mini-inception`, NAME or torchvision:NAME, or timm:NAME; its library is imported.

    classifiers: of torchvision's, image classifiers alone. Raises ValueError with near names if there is no such
    model, with the remedy if its library is not installed.
    """
    if name == MINI_INCEPTION:
        return Name(name, None)
    library = "timm" if name.startswith(TIMM) else "torchvision"
    own, home = name.removeprefix(f"{library}:"), _library(library)
    names = home.list_models(module=home) if library == "torchvision" and classifiers else home.list_models()
    if own in names:
        return Name(own, library)
    kind = "classifier" if classifiers else "model"
    choices = f"choose from {MINI_INCEPTION}, a {kind} of torchvision (resnet18, mobilenet_v2, ...) or {TIMM}NAME"
    if library == "torchvision" and own in home.list_models():
        raise ValueError(f"torchvision's {own} is no image classifier; {choices}")
    architecture, _, tag = own.partition(".")
    if library == "timm" and tag:
        raise ValueError(f"{name} names trained weights, which are never loaded; write {TIMM}{architecture}")
    written = {MINI_INCEPTION: MINI_INCEPTION, **{one: str(Name(one, library)) for one in names}}
    near = meant(own, written, most=3, shown=lambda one: repr(written[one]))
    raise ValueError(f"no model is called {name!r}{near}; {choices}")


def _library(name: str) -> Any:
    try:
        if name == "timm":
            import timm

            return timm
        from torchvision import models

        return models
    except ImportError:
        extra = "timm" if name == "timm" else "lab"
        raise ValueError(f"{name}'s models need it: pip install 'evonorm[{extra}]'") from None
