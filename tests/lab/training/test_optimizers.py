"""SGD and Adam against the definitions, step by step, in plain Python numbers."""

from __future__ import annotations

import math

import pytest
import torch

from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.optimizers import SGD, Adam, make

GRADIENTS = [0.5, -1.0, 2.0, 0.25]


def run(optimizer, parameter: torch.nn.Parameter) -> list[float]:
    seen = []
    for gradient in GRADIENTS:
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        seen.append(parameter.item())
    return seen


def test_sgd_by_hand() -> None:
    """lr 0.1, momentum 0.9, decay 0.5: rates 0.1, 0.1/1.5, 0.1/2, 0.1/2.5; the rate is inside the velocity."""
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    seen = run(SGD([parameter], learning_rate=0.1, momentum=0.9, decay=0.5), parameter)
    # velocities: -0.05; -0.045 + 0.1/1.5 = 0.0216667; 0.0195 - 0.1 = -0.0805; -0.07245 - 0.01 = -0.08245
    assert seen == pytest.approx(
        [0.95, 0.95 + 0.13 / 6, 0.95 + 0.13 / 6 - 0.0805, 0.95 + 0.13 / 6 - 0.16295], rel=1e-12
    )


def test_sgd_differs_from_torchs_once_the_rate_changes() -> None:
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64)) for _ in range(2))
    mine = SGD([ours], learning_rate=0.1, decay=0.5)
    other = torch.optim.SGD([theirs], lr=0.1, momentum=0.9)
    for step, gradient in enumerate(GRADIENTS):
        for p, optimizer in ((ours, mine), (theirs, other)):
            p.grad = torch.full_like(p, gradient)
            if optimizer is other:
                other.param_groups[0]["lr"] = 0.1 / (1 + 0.5 * step)
            optimizer.step()
        assert (ours.item() == pytest.approx(theirs.item(), rel=1e-12)) == (step == 0)


def test_adam_by_hand() -> None:
    """Keras' form: epsilon is added to sqrt(v) before the bias correction, which is in the rate."""
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    seen = run(Adam([parameter], learning_rate=0.1, decay=0.25), parameter)
    value, m, v, expected = 1.0, 0.0, 0.0, []
    for t, gradient in enumerate(GRADIENTS):
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        rate = 0.1 / (1 + 0.25 * t) * math.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1))
        value -= rate * m / (math.sqrt(v) + 1e-7)
        expected.append(value)
    assert seen == pytest.approx(expected, rel=1e-12)


def test_epsilon_hat_shows_where_gradients_are_tiny() -> None:
    """torch's epsilon sits after the bias correction: at gradients near epsilon the two forms part."""
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64)) for _ in range(2))
    ours.grad = theirs.grad = torch.tensor([1e-7], dtype=torch.float64)
    Adam([ours], learning_rate=0.1).step()
    torch.optim.Adam([theirs], lr=0.1, eps=1e-7).step()
    m, v = 0.1 * 1e-7, 0.001 * 1e-14
    rate = 0.1 * math.sqrt(0.001) / 0.1
    assert 1 - ours.item() == pytest.approx(rate * m / (math.sqrt(v) + 1e-7), rel=1e-6)
    assert 1 - theirs.item() == pytest.approx(0.05, rel=1e-6)


def test_clipping_is_of_each_tensor() -> None:
    big = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    small = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    big.grad, small.grad = torch.tensor([3.0, 4.0]).double(), torch.tensor([0.3, 0.4]).double()
    SGD([big, small], learning_rate=1.0, momentum=0.0, clip_norm=1.0).step()
    torch.testing.assert_close(big.detach(), -torch.tensor([0.6, 0.8]).double())
    torch.testing.assert_close(small.detach(), -torch.tensor([0.3, 0.4]).double())


def test_a_parameter_without_gradient_stays() -> None:
    kept, moved = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    moved.grad = torch.ones(2)
    Adam([kept, moved]).step()
    assert torch.equal(kept.detach(), torch.ones(2))
    assert not torch.equal(moved.detach(), torch.ones(2))


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_state_survives_a_checkpoint(kind: str) -> None:
    config = TrainConfig(optimizer=kind).resolved(precision="fp32", grouped=False, eps=1e-5)
    results = []
    for interrupted in (False, True):
        parameter = torch.nn.Parameter(torch.linspace(-1, 1, 5))
        model = torch.nn.ParameterList([parameter])
        optimizer = make(config, model, steps_per_epoch=4)
        for step in range(6):
            if interrupted and step == 3:
                state = optimizer.state_dict()
                optimizer = make(config, model, steps_per_epoch=4)
                optimizer.load_state_dict(state)
            parameter.grad = parameter.detach() * (step + 1)
            optimizer.step()
        results.append(parameter.detach().clone())
    assert torch.equal(*results)


def test_the_reports_defaults() -> None:
    sgd = TrainConfig(epochs=60).resolved(precision="fp32", grouped=False, eps=1e-5)
    assert (sgd.learning_rate, sgd.decay, sgd.momentum) == (1e-2, 1e-2 / 60, 0.9)
    adam = TrainConfig(optimizer="adam").resolved(precision="fp32", grouped=False, eps=1e-5)
    assert (adam.learning_rate, adam.decay) == (1e-3, 0.0)
