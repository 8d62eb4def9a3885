"""Normalization-activation layers (EvoNorm and its rivals) for PyTorch, and the lab that compares them.

The names are loaded at first use, so that the command line answers before torch is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evonorm import functional as functional
    from evonorm import keras as keras
    from evonorm import models as models
    from evonorm.layers.batches import convert_sync as convert_sync
    from evonorm.layers.batches import update_statistics as update_statistics
    from evonorm.layers.constructors import norm_layer as norm_layer
    from evonorm.layers.constructors import register_timm as register_timm
    from evonorm.layers.conversion import ConversionWarning as ConversionWarning
    from evonorm.layers.conversion import Plan as Plan
    from evonorm.layers.conversion import convert as convert
    from evonorm.layers.conversion import from_timm as from_timm
    from evonorm.layers.conversion import parameter_groups as parameter_groups
    from evonorm.layers.conversion import plan as plan
    from evonorm.layers.functional import norm_act as norm_act
    from evonorm.layers.modules import NormActivation as NormActivation
    from evonorm.layers.table import add as add_layer
    from evonorm.layers.table import names as names

__version__ = "0.1.0"
__all__ = [
    "ConversionWarning",
    "NormActivation",
    "Plan",
    "__version__",
    "add_layer",
    "convert",
    "convert_sync",
    "from_timm",
    "functional",
    "models",
    "names",
    "norm_act",
    "norm_layer",
    "parameter_groups",
    "plan",
    "register_timm",
    "update_statistics",
]

_SUBMODULES = ("functional", "keras", "models")
_HOME = {
    "ConversionWarning": "evonorm.layers.conversion",
    "NormActivation": "evonorm.layers.modules",
    "add_layer": "evonorm.layers.table",
    "Plan": "evonorm.layers.conversion",
    "convert": "evonorm.layers.conversion",
    "convert_sync": "evonorm.layers.batches",
    "from_timm": "evonorm.layers.conversion",
    "names": "evonorm.layers.table",
    "norm_act": "evonorm.layers.functional",
    "norm_layer": "evonorm.layers.constructors",
    "parameter_groups": "evonorm.layers.conversion",
    "plan": "evonorm.layers.conversion",
    "register_timm": "evonorm.layers.constructors",
    "update_statistics": "evonorm.layers.batches",
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"evonorm.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), "add" if name == "add_layer" else name)
    raise AttributeError(f"module 'evonorm' has no attribute {name!r}")
