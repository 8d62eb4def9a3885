"""Steps of both networks: the losses, what each changes, parts of a batch, the average, what is not finite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evonorm.lab.data import sets
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.diagnosis import diagnose
from evonorm.lab.training.seeding import generator
from evonorm.lab.training.synthesis.judge import Judge
from evonorm.lab.training.synthesis.options import SynthesisOptions
from evonorm.lab.training.tasks.synthesis import Synthesis, discriminator_loss, generator_loss, judge
from evonorm.lab.training.tasks.work import NotFinite
from evonorm.lab.training.training import resolve
from evonorm.models import MiniInception

OPTIONS = SynthesisOptions(width=2, generator_every=2, average=0.5)
CHOSEN = torch.arange(12)


@pytest.fixture(scope="module")
def digits() -> sets.ImageDataset:
    return sets.load("digits")


@pytest.fixture
def made(digits, tmp_path: Path, monkeypatch):
    """Makes a task at work; its judge knows nothing yet, for no step asks it."""
    network = MiniInception(10, "bn-relu", generator=generator(0, "judge")).eval()
    monkeypatch.setattr(judge, "ready", lambda *at: Judge(network, None, "untrained", 0.1))

    def make(layer: str = "evonorm-s0", **options) -> Synthesis:
        config = TrainConfig(
            task="synthesis",
            layer=layer,
            optimizer="adam",
            learning_rate=2e-4,
            train_images=40,
            test_images=20,
            precision="fp32",
            device="cpu",
            options=replace(OPTIONS, **options),
        )
        work = Synthesis(resolve(config)[0], digits, torch.device("cpu"), tmp_path)
        work.build(4)
        work.spread()
        work.model.train()
        return work

    return make


def weights(work: Synthesis) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in work.model.named_parameters()}


def changed(before: dict[str, torch.Tensor], work: Synthesis) -> set[str]:
    return {
        ".".join(name.split(".")[:2]) for name, value in weights(work).items() if not torch.equal(value, before[name])
    }


def test_hinge_losses() -> None:
    real, made = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    assert discriminator_loss(real, made).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert generator_loss(made).item() == pytest.approx(1 / 3)


def test_images_are_between_minus_one_and_one(made) -> None:
    images, labels = made().batch(CHOSEN, 0)
    assert images.shape == (12, 3, 32, 32)
    assert labels.shape == (12,)
    assert (images.min(), images.max()) == (-1, 1)


def test_the_generator_steps_once_in_so_many(made) -> None:
    work = made()
    before = weights(work)
    loss, sums = work.update(CHOSEN, 0)
    assert changed(before, work) == {"networks.discriminator"}
    assert not sums["generator_images"]
    sum_of_both = {"loss": loss * 12, "generator_loss": torch.tensor(0.0), "generator_images": torch.tensor(0.0)}
    before = weights(work)
    loss, sums = work.update(CHOSEN, 1)
    assert changed(before, work) == {"networks.discriminator", "networks.generator", "average.module"}
    assert sums["generator_images"] == 12
    sum_of_both = {name: float(value + ({"loss": loss * 12} | sums)[name]) for name, value in sum_of_both.items()}
    assert work.measure(sum_of_both, 24)["generator_loss"] == pytest.approx(float(sums["generator_loss"]) / 12)
    assert all(p.grad is None and p.requires_grad for p in work.model["networks"].parameters())


def test_parts_of_a_batch_are_the_whole(made) -> None:
    """Up to rounding and to spectral norm's power iteration, which goes on with each pass."""
    gradients = []
    for parts in (1, 3):
        work = made("gn-relu", accumulate=parts, generator_every=1)
        networks = work.model["networks"]
        for _ in range(40):  # until the power iteration stands still
            networks.discriminator(*work.batch(CHOSEN, 0))
            networks.generator(torch.randn(2, networks.generator.latent), torch.arange(2))
        seen = {}
        for name, optimizer in work.optimizers.items():

            def keep(optimizer, *_, name=name, networks=networks, seen=seen) -> None:
                own = networks.get_submodule(name).named_parameters()
                seen.update({f"{name}.{key}": p.grad.clone() for key, p in own})

            optimizer.register_step_pre_hook(keep)
        work.optimizers["discriminator"].param_groups[0]["learning_rate"] = 0.0  # the generator meets the same judge
        work.update(CHOSEN, 0)
        gradients.append(seen)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=2e-2, atol=2e-4, msg=name)


def test_the_average_rises_to_its_weight(made) -> None:
    work = made(generator_every=1, average=0.15)
    expected = None
    for number in range(3):
        work.update(CHOSEN, number)
        newest = work.model["networks"].generator.first.bias.detach().clone()
        decay = min(0.15, (1 + number) / (10 + number))
        # The first average is the weights themselves.
        expected = newest if expected is None else decay * expected + (1 - decay) * newest
        torch.testing.assert_close(work.model["average"].module.first.bias, expected)


@pytest.mark.parametrize("tensor", ["discriminator.linear.bias", "generator.last.bias"])
def test_what_is_not_finite_is_told_before_it_is_applied(made, tensor: str) -> None:
    """Of the generator too: the discriminator meets its images first."""
    work = made()
    work.update(CHOSEN, 0)
    networks = work.model["networks"]
    with torch.no_grad():
        networks.get_parameter(tensor).fill_(torch.nan)
    before = {name: value.nan_to_num() for name, value in weights(work).items()}
    with pytest.raises(NotFinite) as caught:
        work.update(CHOSEN, 1)
    assert all(torch.equal(value.nan_to_num(), before[name]) for name, value in weights(work).items())
    found = diagnose(caught.value.model, caught.value.loss_of, loss=caught.value.loss)
    assert (found.kind, found.tensor) == ("parameter", tensor)


def test_a_step_that_overflows_is_replayed(made) -> None:
    work = made()
    with torch.no_grad():  # beyond what float32 holds, once it is multiplied
        work.model["networks"].discriminator.blocks[0].conv1.bias.fill_(3e38)
    with pytest.raises(NotFinite) as caught:
        work.update(CHOSEN, 0)
    found = diagnose(caught.value.model, caught.value.loss_of, loss=caught.value.loss)
    assert found.kind == "forward"
    assert found.tensor == "discriminator.blocks.0.conv2"


def test_the_loss_repeats_the_steps_noise_on_any_network(made) -> None:
    """What the diagnosis replays is the step that failed: same images, same noise."""
    work = made().model, made().model
    assert all(torch.equal(a, b) for a, b in zip(work[0].parameters(), work[1].parameters(), strict=True))
    one, other = made(), made()
    losses = [w.training_pass(w.model["networks"], CHOSEN, 5)[0] for w in (one, other)]
    assert torch.equal(*losses)
    assert not torch.equal(losses[0], other.training_pass(other.model["networks"], CHOSEN, 6)[0])
