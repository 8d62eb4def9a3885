"""The diagnosis names the first non-finite tensor, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evonorm.lab.training.diagnosis import diagnose
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
    assert (found.kind, found.tensor) == ("not reproduced", None)
    assert len(found.magnitudes) == 4


class Between(nn.Module):
    """What goes wrong lies between modules, or at the end; the first gives several tensors, not all of numbers."""

    def __init__(self, scale: float, at_end: float = 1.0) -> None:
        super().__init__()
        self.several, self.then = Several(), nn.Conv2d(3, 3, 1)
        self.scale, self.at_end = scale, at_end

    def forward(self, x: Tensor) -> Tensor:
        found = self.several(x)
        return self.then(found["x"] * self.scale) * self.at_end


class Several(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"x": x, "mask": x > 0, "none": None, "nothing": x[:0], "pair": (x, x.argmax(1))}


@pytest.mark.parametrize(
    ("model", "tensor"),
    [(Between(float("inf")), "input of then"), (Between(1.0, float("inf")), "output of the network")],
)
def test_a_fault_between_modules_is_no_modules_own(model: nn.Module, tensor: str) -> None:
    found = diagnose(model, square)
    assert (found.kind, found.tensor) == ("forward", tensor)
    assert "between its modules" in found.cause


def test_one_of_several_outputs() -> None:
    class Lost(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
            return x, [x * float("nan")]

    model = nn.Sequential(nn.Identity(), Lost())
    found = diagnose(model, lambda model: model(IMAGES)[0].square().sum())
    assert (found.kind, found.tensor) == ("forward", "1")


def wrapped(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def part_wrapped(model: nn.Module) -> nn.Module:
    model.second = torch.compile(model.second, backend="eager")
    return model


def part_in_place(model: nn.Module) -> nn.Module:
    model.second.compile(backend="eager")
    return in_place(model)


def its_forward(model: nn.Module) -> nn.Module:
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def holding_a_compiled_one(model: nn.Module) -> nn.Module:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = wrapped(model)
            self.body.requires_grad_()
            self.gelu = torch.compile(torch.nn.functional.gelu, backend="eager", fullgraph=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.gelu(self.body(x))

    return Holder()


COMPILED = [wrapped, in_place, part_wrapped, part_in_place, its_forward]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What one test compiled is not another's."""
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("compiled", COMPILED)
def test_a_compiled_network_is_seen_as_it_is_written(compiled: Callable[[nn.Module], nn.Module]) -> None:
    """In each kind of fault the very diagnosis of the network before it was compiled."""
    for spoil in (overflowing, dividing_by_zero, lost_before, sound):
        eager, model = spoil(network()), compiled(spoil(network()))
        with torch.no_grad():
            model(IMAGES)  # compiled now, not in the replay
        found = diagnose(model, square)
        expected = diagnose(eager, square)
        assert (found.kind, found.tensor) == (expected.kind, expected.tensor)
        assert found.magnitudes == expected.magnitudes
        if found.kind == "not reproduced":
            assert "The step ran compiled" in found.cause
        else:
            assert found.cause == expected.cause
        assert all(p.grad is None for p in model.parameters())


def overflowing(model: nn.Sequential) -> nn.Sequential:
    model.second.weight.data *= 1e20
    model.norm.weight.data *= 1e20
    return model


def dividing_by_zero(model: nn.Sequential) -> nn.Sequential:
    model.norm.eps = 0.0
    model.first.weight.data.zero_()
    model.first.bias.data.zero_()
    return model


def lost_before(model: nn.Sequential) -> nn.Sequential:
    model.second.weight.data[0, 0] = float("nan")
    return model


def sound(model: nn.Sequential) -> nn.Sequential:
    return model


def test_compiled_parts_of_a_network() -> None:
    model = holding_a_compiled_one(overflowing(network()))
    with torch.no_grad():
        model(IMAGES)
    found = diagnose(model, square)
    assert (found.kind, found.tensor) == ("forward", "body.second")


def poisoned(graph: Any, _: Any) -> Callable[..., Any]:
    """A compiler that gets it wrong: whatever the network gives becomes NaN."""
    return lambda *inputs: [one * float("nan") for one in graph(*inputs)]


def poisoned_backward(graph: Any, _: Any) -> Callable[..., Any]:
    class Burst(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * float("inf")

    return lambda *inputs: [Burst.apply(one) for one in graph(*inputs)]


@pytest.mark.parametrize("wrong", [poisoned, poisoned_backward])
def test_a_fault_of_compiled_code_is_not_pinned_on_a_tensor(wrong: Callable[..., Any]) -> None:
    model = torch.compile(network(), backend=wrong)
    loss = square(model)
    loss.backward()
    assert not all(torch.isfinite(p.grad).all() for p in model.parameters())
    model.zero_grad()
    found = diagnose(model, square, loss=loss.item())
    assert (found.kind, found.tensor) == ("not reproduced", None)
    assert "The step ran compiled, the replay eagerly" in found.cause
    assert [entry["module"] for entry in found.magnitudes] == ["first", "norm", "second", "pool"]


@pytest.mark.parametrize(
    ("spoil", "loss", "words"),
    [
        (sound, float("nan"), "The step's loss was not finite; replayed, it is"),
        (sound, float("inf"), "The step's loss was not finite; replayed, it is"),
        (
            overflowing,
            2.5,
            "The step's loss was 2.5 and a gradient was not finite; replayed, the loss is not finite, first at second",
        ),
    ],
)
def test_a_replay_that_shows_another_fault(spoil: Any, loss: float, words: str) -> None:
    found = diagnose(spoil(network()), square, loss=loss)
    assert (found.kind, found.tensor) == ("not reproduced", None)
    assert words in found.cause
    assert "compiled" not in found.cause


def test_a_step_that_is_replayed_as_it_was() -> None:
    found = diagnose(overflowing(network()), square, loss=float("nan"))
    assert (found.kind, found.tensor) == ("forward", "second")


def test_a_replay_that_sees_nothing_says_so() -> None:
    """Its logits are not told as 0, which nobody measured."""

    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.inner.weight)

    found = diagnose(Alone(), lambda model: model(torch.ones(1, 3)).sum() * float("inf"))
    assert (found.kind, found.tensor, found.magnitudes) == ("not reproduced", None, [])
    assert "saw none of the network's modules" in found.cause


def test_training_a_compiled_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record and the page of a run that only its compiled code made diverge."""
    from evonorm.lab.pages import page
    from evonorm.lab.training.config import TrainConfig
    from evonorm.lab.training.tasks.classification import Classification
    from evonorm.lab.training.training import train
    from tests.lab.pictures import pictures

    build = Classification.network
    monkeypatch.setattr(Classification, "network", lambda *a: torch.compile(build(*a), backend=poisoned))
    config = TrainConfig(layer="bn-relu", epochs=1, batch_size=32, precision="fp32", device="cpu")
    record = train(config, pictures(), tmp_path)
    assert record.status == "diverged"
    diagnosis = record.summary["diagnosis"]
    assert (diagnosis["kind"], diagnosis["tensor"], diagnosis["step"]) == ("not reproduced", None, 1)
    assert diagnosis["magnitudes"][0]["module"].startswith("stem")
    html = page.render(tmp_path)
    assert "diverged</strong> in epoch 1, step 1; which tensor was the first is not known." in html
    assert "The step ran compiled, the replay eagerly" in html


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
