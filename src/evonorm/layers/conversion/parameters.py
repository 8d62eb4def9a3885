"""Parameter groups for optimizers: what the paper leaves out of weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from evonorm.layers.conversion.kinds import norm_of


def parameter_groups(model: nn.Module, *, weight_decay: float, biases: bool = True) -> list[dict[str, Any]]:
    """Two groups for a torch optimizer: one with `weight_decay`, one without.

    Without it are the parameters of every normalization, as in the paper's code (tensorflow/tpu, resnet_model.py),
    which leaves out batch normalization and EvoNorm, weights, biases and v alike, and decays everything else. biases:
    whether the other layers' biases are decayed too, as there. The maps of a conditional NormActivation are decayed as
    the linear maps they are: that draws its weight to 1 and its bias to 0, where they begin, and a rule by dimensions,
    as timm's, does it too. BigGAN, StyleGAN2 and guided diffusion train theirs without weight decay anywhere. Frozen
    parameters are in neither; a shared one is in one, without decay if a normalization has it. Raises ValueError if
    weight_decay is negative.
    """
    if weight_decay < 0:
        raise ValueError(f"weight_decay must not be negative: got weight_decay={weight_decay}")
    spared = {id(p) for m in model.modules() if norm_of(m) is not None for p in m.parameters(recurse=False)}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            without = id(parameter) in spared or (not biases and name.rpartition(".")[2] == "bias")
            (plain if without else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
