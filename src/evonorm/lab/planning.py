"""`evonorm plan`: what putting a layer into a model of torchvision or timm would do, by the model's name."""

from __future__ import annotations

import difflib
import importlib
import warnings
from typing import TYPE_CHECKING, Any

import torch

from evonorm.lab.errors import UserError
from evonorm.layers.conversion import Plan, plan

if TYPE_CHECKING:
    from torch import nn

_LIBRARIES = ("torchvision", "timm")


def plan_of(name: str, layer: str, **options: Any) -> Plan:
    """The plan of a model called torchvision:NAME, NAME alone, or timm:NAME; options as of `evonorm.plan`.

    Raises UserError if there is no such library, model or layer, or an option is wrong.
    """
    try:
        return plan(named_model(name), layer, **options)
    except ValueError as error:
        raise UserError(str(error)) from error


def named_model(name: str) -> nn.Module:
    """The model with random weights or none: on the meta device where it can be built there, which takes no memory."""
    # A name alone is torchvision's, as in `evonorm train --model`.
    library, _, own = name.rpartition(":")
    library = library or "torchvision"
    if library not in _LIBRARIES:
        raise UserError(f"a model is torchvision:NAME or timm:NAME, as in torchvision:resnet50: got {name!r}")
    try:
        home = importlib.import_module("torchvision.models" if library == "torchvision" else "timm")
    except ImportError as error:
        raise UserError(f"{name} needs {library}: pip install {library}") from error
    known = home.list_models()
    if own not in known:
        near = difflib.get_close_matches(own, known, n=1)
        hint = f"did you mean {library}:{near[0]}?" if near else f"{library} lists {len(known)} models"
        raise UserError(f"{library} has no model {own!r}; {hint}")
    # What a library warns of when it builds a model is not about the plan.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return _build(home, library, own)
        except (NotImplementedError, RuntimeError):  # its constructor computes with values
            return _build(home, library, own)


def _build(home: Any, library: str, own: str) -> nn.Module:
    model: nn.Module
    if library == "timm":
        model = home.create_model(own)
    elif home.get_model_builder(own).__module__.startswith(("torchvision.models.detection", "torchvision.models.seg")):
        model = home.get_model(own, weights=None, weights_backbone=None)
    else:
        model = home.get_model(own, weights=None)
    return model
