"""A task with two networks in one file: one makes colours, the other tells them from those of the images.

It has a step of its own, options of its own, and a metric over all validation images that does not add up.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evonorm import NormActivation
from evonorm.lab.data.sets import ImageDataset
from evonorm.lab.training import optimizers, tasks
from evonorm.lab.training.seeding import generator
from evonorm.lab.training.tasks.work import Pass, Work


@dataclass(frozen=True)
class Options:
    """Options of the task.

    Args:
        critic_steps: steps of the second network in each of the first.
        critic_loss: hinge or logistic.
        keep: whether the colours made are written into the run's folder after each epoch.
    """

    critic_steps: int = 2
    critic_loss: Literal["hinge", "logistic"] = "hinge"
    keep: bool = False


class Adversarial(Work):
    """The maker gets four drawn numbers a colour; the critic sees a colour, three numbers."""

    dataset: ImageDataset

    @property
    def sizes(self) -> tuple[int, int]:
        return self.dataset.train_count, self.dataset.test_count

    def network(self) -> nn.Module:
        layer = NormActivation(8, self.config.layer, groups=4)
        maker = nn.Sequential(nn.Linear(4, 8), nn.Unflatten(1, (8, 1)), layer, nn.Flatten(), nn.Linear(8, 3))
        return nn.ModuleDict({"maker": maker, "critic": nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))})

    def build(self, steps_per_epoch: int) -> None:
        self.model = self.placed(self.network())
        self.maker, self.critic = (self.model.get_submodule(name) for name in ("maker", "critic"))
        own = {"maker": steps_per_epoch, "critic": steps_per_epoch * self.config.options.critic_steps}
        self.optimizers = {
            f"{name}_optimizer": optimizers.make(self.config, self.model.get_submodule(name), steps_per_epoch=steps)
            for name, steps in own.items()
        }

    def update(self, chosen: Tensor, step: int) -> Pass:
        """The critic's steps, each on two halves of the images, then the maker's."""
        for number in range(self.config.options.critic_steps):
            draw = functools.partial(self._told, draw=step * 100 + number)
            halves = [functools.partial(draw, half=half) for half in chosen.chunk(2)]
            critic_loss, _ = self.descend(self.critic, self.optimizers["critic_optimizer"], *halves)
        made = lambda maker: (-self.critic(self._made(maker, len(chosen), "maker", step)).mean(), {})  # noqa: E731
        loss, _ = self.descend(self.maker, self.optimizers["maker_optimizer"], made)
        return loss, {"critic_loss": critic_loss * len(chosen)}

    def training_pass(self, model: nn.Module, chosen: Tensor, step: int) -> Pass:
        raise NotImplementedError

    def validate(self, epoch: int) -> Mapping[str, float]:
        """How far the mean colour made is from that of all validation images."""
        made = self._made(self.maker, 64, "validation", 0)
        if self.config.options.keep:
            torch.save(made, self.folder / f"colours-{epoch}.pt")
        return {"distance": (made.mean(0) - self._colours(self.dataset.test_images).mean(0)).norm().item()}

    def _told(self, critic: nn.Module, half: Tensor, draw: int) -> Pass:
        """Half of the critic's mean loss."""
        with torch.no_grad():
            made = self._made(self.maker, len(half), "critic", draw)
        real = self._colours(self.dataset.train_images[half.numpy()])
        margin = F.relu if self.config.options.critic_loss == "hinge" else F.softplus
        shift = float(self.config.options.critic_loss == "hinge")
        return (margin(shift - critic(real)).mean() + margin(shift + critic(made)).mean()) / 2, {}

    def _made(self, maker: nn.Module, count: int, purpose: str, number: int) -> Tensor:
        numbers = torch.randn(count, 4, generator=generator(self.config.seeds.model, purpose, number))
        return maker(numbers)  # type: ignore[no-any-return]

    @staticmethod
    def _colours(images: object) -> Tensor:
        return torch.as_tensor(images).float().mean((1, 2)) / 255


DISTANCE = tasks.Metric("distance", splits=("val",))
ADVERSARIAL = tasks.add(
    tasks.Task(
        "adversarial",
        (tasks.Metric("loss", splits=("train",)), tasks.Metric("critic_loss", splits=("train",)), DISTANCE),
        DISTANCE,
        Adversarial,
        options=Options,
        replicas=False,
    )
)
