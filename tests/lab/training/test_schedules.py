"""The learning rate of each batch, against the formulas worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from evonorm.lab.training import schedules
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.optimizers import SGD, Adam, make
from evonorm.layers.modules import NormActivation


def factors(steps: int, **given: Any) -> list[float]:
    config = TrainConfig(**given).resolved(precision="fp32", grouped=True, eps=1e-5)
    factor = schedules.of(config, steps_per_epoch=steps)
    return [factor(t) for t in range(config.epochs * steps + 1)]


def test_cosine() -> None:
    found = factors(2, epochs=2, schedule="cosine")
    assert found == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0], abs=1e-15)


def test_cosine_after_warm_up() -> None:
    found = factors(4, epochs=3, schedule="cosine", warmup_epochs=1.0)
    assert found[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert found[4:] == pytest.approx([(1 + math.cos(math.pi * k / 8)) / 2 for k in range(9)], abs=1e-15)


def test_cosine_is_torchs() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([weight], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=12)
    for factor in factors(4, epochs=3, schedule="cosine")[:-1]:
        assert factor == pytest.approx(theirs.param_groups[0]["lr"], abs=1e-12)
        theirs.step()
        schedule.step()


def test_steps_count_from_the_start() -> None:
    assert factors(2, epochs=4, schedule="step", step_epochs=2) == pytest.approx([1] * 4 + [0.1] * 4 + [0.01])
    found = factors(2, epochs=3, schedule="step", step_epochs=1, step_factor=0.5, warmup_epochs=1.0)
    assert found == pytest.approx([0.5, 1, 0.5, 0.5, 0.25, 0.25, 0.125])
    assert factors(1, epochs=9, schedule="step")[:9] == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 3)
    assert factors(1, epochs=2, schedule="step")[:2] == pytest.approx([1, 0.1])  # a third of two epochs is one


def test_warm_up_of_part_of_an_epoch() -> None:
    assert factors(4, epochs=2, warmup_epochs=0.5)[:4] == pytest.approx([0.5, 1, 1, 1])


def test_warm_up_and_the_reports_decay() -> None:
    """Both at once: the schedule times 1 / (1 + decay * t)."""
    config = TrainConfig(learning_rate=0.1, decay=0.5, epochs=2, warmup_epochs=1.0)
    config = config.resolved(precision="fp32", grouped=True, eps=1e-5)
    model = torch.nn.Linear(2, 2)
    optimizer = make(config, model, steps_per_epoch=4)
    rates = []
    for _ in range(6):
        rates.append(optimizer.learning_rate())
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    expected = [0.1 * min(1, (t + 1) / 4) / (1 + 0.5 * t) for t in range(6)]
    assert rates == pytest.approx(expected)


GRADIENTS = [0.5, -1.0, 2.0, 0.25]


def descended(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> list[float]:
    seen = []
    for gradient in GRADIENTS:
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        seen.append(parameter.item())
    return seen


def test_weight_decay_is_torchs() -> None:
    """SGD's in the gradient, AdamW's apart from it; Adam's epsilon differs by Keras' form, here too small to matter."""

    def one() -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))

    ours, theirs = one(), one()
    found = descended(SGD([{"params": [ours], "weight_decay": 0.1}], learning_rate=0.1), ours)
    assert found == pytest.approx(
        descended(torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.1), theirs), rel=1e-12
    )
    ours, theirs = one(), one()
    found = descended(Adam([{"params": [ours], "weight_decay": 0.1}], learning_rate=0.1), ours)
    assert found == pytest.approx(
        descended(torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.1, eps=1e-12), theirs), rel=1e-5
    )


def test_normalizations_do_not_decay() -> None:
    """Without a gradient from the data the weights shrink by rate * weight_decay, the layer's parameters stay."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), NormActivation(4, layer="evonorm-s0", groups=2))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = TrainConfig(learning_rate=0.5, schedule="cosine", weight_decay=0.1, epochs=1)
    optimizer = make(config.resolved(precision="fp32", grouped=True, eps=1e-5), model, steps_per_epoch=10)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1.0 if name.startswith("1.") else 0.95
        torch.testing.assert_close(parameter.detach(), before[name] * factor)
    assert {name.partition(".")[0] for name in before} == {"0", "1"}


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_state_with_weight_decay_survives_a_checkpoint(kind: Any) -> None:
    given = TrainConfig(optimizer=kind, schedule="cosine", weight_decay=0.1, warmup_epochs=0.5, epochs=2)
    config, results = given.resolved(precision="fp32", grouped=True, eps=1e-5), []
    for interrupted in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        optimizer = make(config, model, steps_per_epoch=4)
        for step in range(8):
            if interrupted and step == 3:
                state = optimizer.state_dict()
                optimizer = make(config, model, steps_per_epoch=4)
                optimizer.load_state_dict(state)
            for parameter in model.parameters():
                parameter.grad = parameter.detach() * (step + 1)
            optimizer.step()
        results.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(whole, resumed) for whole, resumed in zip(*results, strict=True))
