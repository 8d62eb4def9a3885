"""How the learning rate moves: by which factor of its height each batch is trained. Pure arithmetic; no state."""

from __future__ import annotations

import math
from collections.abc import Callable

from evonorm.lab.training.config import TrainConfig

Schedule = Callable[[int], float]


def of(config: TrainConfig, *, steps_per_epoch: int) -> Schedule:
    """Batch t = 0, 1, ... -> factor of the learning rate; steps_per_epoch: batches in an epoch.

    With T = epochs * steps_per_epoch batches in all and W = warmup_epochs * steps_per_epoch of warm-up:

    warm-up: min(1, (t + 1) / W), times
    decay: 1 here; the optimizer has it, 1 / (1 + decay * t)
    cosine: (1 + cos(pi * max(0, t - W) / (T - W))) / 2, 0 at t = T, which no batch has (Loshchilov, Hutter 2017,
        arXiv 1608.03983, without restarts)
    step: step_factor ^ floor(t / (step_epochs * steps_per_epoch)) (He et al. 2016, arXiv 1512.03385)

    Warm-up in equal steps, a batch each: Goyal et al. 2017, arXiv 1706.02677.
    """
    total = config.epochs * steps_per_epoch
    warmup = config.warmup_epochs * steps_per_epoch

    def shape(t: int) -> float:
        if config.schedule == "cosine":
            return (1 + math.cos(math.pi * min(1.0, max(0.0, t - warmup) / (total - warmup)))) / 2
        if config.schedule == "step":
            assert config.step_epochs is not None, "the config is not resolved"
            return config.step_factor ** (t // (config.step_epochs * steps_per_epoch))
        return 1.0

    return lambda t: shape(t) * (min(1.0, (t + 1) / warmup) if warmup else 1.0)
