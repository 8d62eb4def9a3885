"""Both networks against each other: the loss, what a step changes, parts of a batch, the average, going on again."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from evonorm.lab.training.diagnosis import diagnose
from evonorm.lab.training.synthesis.adversarial import (
    Adversaries,
    NotFinite,
    Rules,
    discriminator_loss,
    generator_loss,
)
from evonorm.models import BigGAN

RULES = Rules(generator_every=2, average=0.5)


def made(layer: str = "evonorm-s0", rules: Rules = RULES) -> Adversaries:
    networks = BigGAN(10, 32, layer, width=2, source=torch.Generator().manual_seed(0))
    return Adversaries(networks, rules, 10)


def batch(number: int, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(number)
    return torch.rand(count, 3, 32, 32, generator=source) * 2 - 1, torch.arange(count) % 10


def trained(adversaries: Adversaries, steps: range) -> Adversaries:
    for number in steps:
        adversaries.step(*batch(number), number)
    return adversaries


def weights(adversaries: Adversaries) -> dict[str, torch.Tensor]:
    return {
        **{f"networks.{name}": value.clone() for name, value in adversaries.networks.state_dict().items()},
        **{f"average.{name}": value.clone() for name, value in adversaries.average.state_dict().items()},
    }


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """First parts of the names of parameters that differ."""
    found = {name for name, value in before.items() if not torch.equal(value, after[name])}
    return {".".join(name.split(".")[:2]) for name in found if name.endswith("original")}


def test_hinge_losses() -> None:
    real, made = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    assert discriminator_loss(real, made).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert generator_loss(made).item() == pytest.approx(1 / 3)


def test_the_generator_steps_once_in_so_many() -> None:
    adversaries = made()
    before = weights(adversaries)
    assert set(adversaries.step(*batch(0), 0)) == {"discriminator"}
    first = weights(adversaries)
    assert changed(before, first) == {"networks.discriminator"}
    assert set(adversaries.step(*batch(1), 1)) == {"discriminator", "generator"}
    assert changed(first, weights(adversaries)) == {
        "networks.discriminator",
        "networks.generator",
        "average.module",
    }


def test_parts_of_a_batch_are_the_whole() -> None:
    """Up to rounding and to spectral norm's power iteration, which goes on with each pass."""
    rules = replace(RULES, generator_every=1)
    gradients = []
    for accumulate in (1, 3):
        adversaries = made("gn-relu", replace(rules, accumulate=accumulate))
        for _ in range(30):  # until the power iteration stands still
            adversaries.networks.train().discriminator(*batch(0))
            adversaries.networks.generator(torch.randn(2, adversaries.networks.generator.latent), torch.arange(2))
        seen = {}
        for name, optimizer in adversaries.optimizers.items():
            network = adversaries.networks.get_submodule(name)

            def keep(*_, name=name, network=network, seen=seen) -> None:
                seen.update({f"{name}.{key}": p.grad.clone() for key, p in network.named_parameters()})

            optimizer.register_step_pre_hook(keep)
        adversaries.optimizers["discriminator"].param_groups[0]["lr"] = 0.0  # the generator meets the same judge
        adversaries.step(*batch(0), 0)
        gradients.append(seen)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=2e-2, atol=2e-4, msg=name)


def test_the_average_rises_to_its_weight() -> None:
    adversaries = made(rules=replace(RULES, generator_every=1, average=0.15))
    expected = None
    for number in range(3):
        adversaries.step(*batch(number), number)
        newest = adversaries.networks.generator.first.bias.detach().clone()
        decay = min(0.15, (1 + number) / (10 + number))
        # The first average is the weights themselves.
        expected = newest if expected is None else decay * expected + (1 - decay) * newest
        torch.testing.assert_close(adversaries.averaged.first.bias, expected)


@pytest.mark.parametrize("layer", ["evonorm-b0", "bn-relu", "gn-relu"])
def test_going_on_from_a_state_is_not_having_stopped(layer: str) -> None:
    """To the last bit, from the middle between two steps of the generator."""
    whole = trained(made(layer), range(5))
    first = trained(made(layer), range(3))
    state = copy.deepcopy(first.state_dict())
    again = made(layer)
    again.load_state_dict(state)
    trained(again, range(3, 5))
    expected, found = weights(whole), weights(again)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("tensor", ["discriminator.linear.bias", "generator.last.bias"])
def test_what_is_not_finite_is_told_before_it_is_applied(tensor: str) -> None:
    """The discriminator meets the generator's images first."""
    adversaries = trained(made(), range(1))
    with torch.no_grad():
        adversaries.networks.get_parameter(tensor).fill_(torch.nan)
    before = weights(adversaries)
    with pytest.raises(NotFinite, match="the discriminator's step is not finite") as caught:
        adversaries.step(*batch(1), 1)
    assert not changed(before, weights(adversaries))
    found = diagnose(adversaries.networks, caught.value.replay, loss=caught.value.loss)
    assert (found.kind, found.tensor) == ("parameter", tensor)


def test_a_step_that_overflows_is_told_and_replayed() -> None:
    adversaries = made()
    with torch.no_grad():
        adversaries.networks.discriminator.linear.bias.fill_(3e38)
    images, labels = batch(0)
    with pytest.raises(NotFinite) as caught:
        adversaries.step(images * 1e38, labels, 0)
    found = diagnose(adversaries.networks, caught.value.replay, loss=caught.value.loss)
    assert found.kind == "forward"
    assert found.tensor.startswith("discriminator.")
