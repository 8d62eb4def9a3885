"""Generator and discriminator trained against each other: hinge loss, steps, accumulation, the generator's average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from evonorm.lab.training.seeding import generator
from evonorm.lab.training.synthesis.samples import noise
from evonorm.models import BigGAN
from evonorm.models.biggan import Generator

# As BigGAN trains: Adam without momentum.
BETAS, ADAM_EPS = (0.0, 0.999), 1e-6


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """mean max(0, 1 - D(real)) + mean max(0, 1 + D(made)). Source: Lim, Ye 2017, arXiv 1705.02894."""
    return F.relu(1 - real).mean() + F.relu(1 + made).mean()


def generator_loss(made: Tensor) -> Tensor:
    """-mean D(made)."""
    return -made.mean()


@dataclass(frozen=True)
class Rules:
    """learning rates of both; generator_every: discriminator steps to one of the generator; accumulate: parts a batch
    is taken in, one after the other, so that it may be larger than memory; average: the weight of what was before in
    the generator's moving average, which rises to it as (1 + steps) / (10 + steps); bf16: under autocast; seed: of
    noise and labels."""

    generator_rate: float = 2e-4
    discriminator_rate: float = 2e-4
    generator_every: int = 4
    accumulate: int = 1
    average: float = 0.9999
    bf16: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """What one network's step is taken on: real images and their labels, and the step's number."""

    of: str
    number: int
    images: Tensor
    labels: Tensor


class NotFinite(Exception):
    """The loss, or a gradient, of this network's step was not finite. replay: that loss, of networks in any state."""

    def __init__(self, network: str, loss: float, replay: Callable[[BigGAN], Tensor]) -> None:
        super().__init__(f"the {network}'s step is not finite")
        self.network, self.loss, self.replay = network, loss, replay


class Adversaries:
    """Both networks, their optimizers, and the generator's moving average; `step` trains them on a batch."""

    def __init__(self, networks: BigGAN, rules: Rules, classes: int) -> None:
        self.networks, self.rules, self.classes = networks, rules, classes
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=BETAS, eps=ADAM_EPS)
            for name, network, rate in (
                ("generator", networks.generator, rules.generator_rate),
                ("discriminator", networks.discriminator, rules.discriminator_rate),
            )
        }
        # Buffers (running statistics, spectral norm's vectors) are copied.
        self.average = AveragedModel(networks.generator, multi_avg_fn=self._blend)

    @property
    def averaged(self) -> Generator:
        """The generator whose weights are the moving average; samples are its."""
        return cast(Generator, self.average.module)

    def step(self, images: Tensor, labels: Tensor, number: int) -> dict[str, float]:
        """One step of the discriminator and, in each `generator_every`-th, one of the generator; number: from 0.

        images: (N, 3, H, W) in [-1, 1]; labels: (N,). Returns the loss of each that had its step. Raises NotFinite
        before anything is changed by a loss or a gradient that is not.
        """
        losses = {"discriminator": self._update(Batch("discriminator", number, images, labels))}
        if (number + 1) % self.rules.generator_every == 0:
            losses["generator"] = self._update(Batch("generator", number, images, labels))
            self.average.update_parameters(self.networks.generator)
        return losses

    def state_dict(self) -> dict[str, Any]:
        """All that training goes on from."""
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return {"networks": self.networks.state_dict(), "average": self.average.state_dict(), "optimizers": optimizers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `state_dict` gave it."""
        self.networks.load_state_dict(state["networks"])
        self.average.load_state_dict(state["average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

    def _update(self, batch: Batch) -> float:
        networks, optimizer = self.networks.train(), self.optimizers[batch.of]
        for name in self.optimizers:  # what the other does not learn from needs no gradient
            networks.get_submodule(name).requires_grad_(name == batch.of)
        total = 0.0
        for loss in self._losses(networks, batch):
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not (math.isfinite(total) and all(bool(gradient.isfinite().all()) for gradient in gradients)):
            raise NotFinite(batch.of, total, lambda networks: sum(self._losses(networks, batch), torch.zeros(())))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    def _losses(self, networks: BigGAN, batch: Batch) -> Iterator[Tensor]:
        """Of each part of the batch, its share in the whole's; the noise of a step is the same however it is parted."""
        count = len(batch.labels)
        source = generator(self.rules.seed, f"noise of the {batch.of}", batch.number)
        noises = noise(count, networks.generator.latent, source).to(batch.labels.device)
        classes = torch.randint(self.classes, (count,), generator=source).to(batch.labels.device)
        for chosen in torch.arange(count, device=batch.labels.device).chunk(self.rules.accumulate):
            z, wanted = noises[chosen], classes[chosen]
            with torch.autocast(z.device.type, torch.bfloat16, enabled=self.rules.bf16):
                with torch.set_grad_enabled(batch.of == "generator"):
                    made = networks.generator(z, wanted)
                if batch.of == "generator":
                    loss = generator_loss(networks.discriminator(made, wanted).float())
                else:
                    images = torch.cat([batch.images[chosen], made.to(batch.images.dtype)])
                    judged = networks.discriminator(images, torch.cat([batch.labels[chosen], wanted])).float()
                    loss = discriminator_loss(*judged.chunk(2))
            yield loss * (len(chosen) / count)

    def _blend(self, averages: Any, newest: Any, steps: Any) -> None:
        decay = min(self.rules.average, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(list(averages), list(newest), 1 - decay)
