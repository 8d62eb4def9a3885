"""The diagnosis names the first non-finite tensor, whatever its kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evonorm.lab.diagnosis import diagnose
from evonorm.layers.modules import NormActivation


def network() -> nn.Sequential:
    model = nn.Sequential()
    model.add_module("first", nn.Conv2d(3, 8, 1))
    model.add_module("norm", NormActivation(8, "evonorm-s0", groups=4))
    model.add_module("second", nn.Conv2d(8, 8, 1))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    return model


IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def square(model: nn.Module) -> Tensor:
    return model(IMAGES).square().sum()


def test_a_parameter_that_was_lost_before_the_step() -> None:
    model = network()
    model.second.weight.data[0, 0] = float("nan")
    found = diagnose(model, square)
    assert (found.kind, found.tensor) == ("parameter", "second.weight")
    assert "the update before it overflowed" in found.cause


def test_a_forward_overflow_after_growth() -> None:
    model = network()
    model.second.weight.data *= 1e20
    model.norm.weight.data *= 1e20
    found = diagnose(model, square)
    assert (found.kind, found.tensor) == ("forward", "second")
    assert [entry["module"] for entry in found.magnitudes] == ["first", "norm"]
    assert found.magnitudes[1]["largest"] > 1e19
    assert "Activations grew to" in found.cause
    assert "at norm before second overflowed" in found.cause


def test_weights_too_large_on_small_activations() -> None:
    model = network()
    model.second.weight.data *= 3e38 / model.second.weight.abs().max()
    found = diagnose(model, square)
    assert (found.kind, found.tensor) == ("forward", "second")
    assert "weights are too large" in found.cause


def test_a_layer_that_divides_by_zero() -> None:
    model = network()
    model.norm.eps = 0.0
    model.first.weight.data.zero_()
    model.first.bias.data.zero_()
    found = diagnose(model, square)
    assert (found.kind, found.tensor) == ("forward", "norm")
    assert "evonorm-s0" in found.cause
    assert "epsilon" in found.cause


def test_a_loss_that_overflows() -> None:
    found = diagnose(network(), lambda model: (model(IMAGES) * 1e30).square().sum())
    assert (found.kind, found.tensor) == ("loss", "loss")


def test_a_gradient_that_overflows_first_at_the_end_of_the_network() -> None:
    class Burst(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    found = diagnose(network(), lambda model: Burst.apply(model(IMAGES)).square().sum())
    assert (found.kind, found.tensor) == ("gradient", "gradient of pool's output")


def test_a_finite_step_is_said_to_be_finite() -> None:
    found = diagnose(network(), square)
    assert found.kind == "not reproduced"
    assert len(found.magnitudes) == 4


def test_the_model_is_left_as_it_was() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    diagnose(model, square)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("magnitude", [1.0, 5.0])
def test_magnitudes_are_of_outputs(magnitude: float) -> None:
    model = nn.Sequential(nn.Identity())
    found = diagnose(model, lambda model: model(torch.tensor([-magnitude, 0.5], requires_grad=True)).sum())
    assert found.magnitudes == [{"module": "0", "largest": magnitude}]
