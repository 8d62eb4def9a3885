"""`evonorm plan`: what putting a layer into a model would do, by the model's name."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from evonorm.lab.errors import UserError
from evonorm.layers.conversion import Plan, plan
from evonorm.models import names


def plan_of(name: str, layer: str, **options: Any) -> Plan:
    """The plan of the model that `models.names` finds by this name; options as of `evonorm.plan`.

    Raises UserError if there is no such library, model or layer, or an option is wrong.
    """
    try:
        return plan(named_model(name), layer, **options)
    except ValueError as error:
        raise UserError(str(error)) from error


def named_model(name: str) -> nn.Module:
    """The model with random weights or none: on the meta device where it can be built there, which takes no memory.

    Raises ValueError if there is no such model.
    """
    found = names.find(name)
    # What a library warns of when it builds a model is not about the plan.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return found.create()
        except (NotImplementedError, RuntimeError):  # its constructor computes with values
            return found.create()
