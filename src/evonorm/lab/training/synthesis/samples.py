"""Samples of a generator: noise and its truncation, standing statistics, grids, and classes in between."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
import torchvision.utils
from torch import Tensor, nn

import evonorm
from evonorm.lab.records import pictures
from evonorm.lab.training.seeding import generator
from evonorm.models.biggan import Generator

BATCH = 100
STANDING = 20  # batches that running statistics are taken over anew before a sample is drawn
_ROWS, _STEPS = 8, 9


def noise(count: int, latent: int, source: torch.Generator, *, truncation: float | None = None) -> Tensor:
    """z: (count, latent), standard normal; with truncation, each number drawn again until it is within +-truncation."""
    z = torch.empty(count, latent)
    if truncation is None:
        return z.normal_(generator=source)
    return nn.init.trunc_normal_(z, a=-truncation, b=truncation, generator=source)


class Sampler:
    """Draws from a generator in evaluation; what it draws follows from its seed alone. truncation: as in `noise`."""

    def __init__(self, network: Generator, seed: int, *, classes: int, truncation: float | None = None) -> None:
        self.network = copy.deepcopy(network).eval()  # its statistics are taken anew, the training's stay
        self.seed, self.classes, self.truncation = seed, classes, truncation
        self.device = next(network.parameters()).device
        numbers = torch.arange(STANDING).unbind()
        evonorm.update_statistics((number.view(1) for number in numbers), _Standing(self))

    def z(self, count: int, purpose: str, number: int = 0, *, truncation: float | None = None) -> Tensor:
        """Noise for one purpose, on the network's device."""
        source = generator(self.seed, purpose, number)
        return noise(count, self.network.latent, source, truncation=truncation).to(self.device)

    @torch.inference_mode()
    def of(self, labels: Tensor) -> Iterator[Tensor]:
        """A sample of each label, in [-1, 1], in batches."""
        for number, part in enumerate(torch.split(labels, BATCH)):
            z = self.z(len(part), "sample", number, truncation=self.truncation)
            yield self.network(z, part.to(self.device)).float()

    @torch.inference_mode()
    def grid(self) -> Tensor:
        """A column a class, the same noise in every column: (rows * classes, 3, H, W), row by row."""
        z = self.z(_ROWS, "grid", truncation=self.truncation).repeat_interleave(self.classes, 0)
        labels = torch.arange(self.classes, device=self.device).repeat(_ROWS)
        return torch.cat(
            [self.network(*parts) for parts in zip(torch.split(z, BATCH), torch.split(labels, BATCH), strict=True)]
        )

    @torch.inference_mode()
    def interpolation(self) -> Tensor:
        """A row from each class to the next, in equal steps between their features, with one noise a row."""
        features = self.network.embedding(torch.arange(self.classes, device=self.device))
        z = self.z(self.classes, "interpolation", truncation=self.truncation)
        weights = torch.linspace(0, 1, _STEPS, device=self.device)
        rows = [
            self.network(one.expand(_STEPS, -1), torch.lerp(start, end, weights.unsqueeze(1)))
            for one, start, end in zip(z, features, features.roll(-1, 0), strict=True)
        ]
        return torch.cat(rows)

    def write(self, folder: Path, epoch: int, words: str) -> None:
        """The grid and the classes in between as pictures of the run; words: what else their captions say."""
        cut = "" if self.truncation is None else f", noise within {self.truncation:g} deviations"
        columns = f"a column a class, a row a noise{cut}; {words}"
        self._write(folder, "samples", epoch, self.grid(), self.classes, columns)
        between = f"each row from one class to the next, its noise the same{cut}; {words}"
        self._write(folder, "interpolation", epoch, self.interpolation(), _STEPS, between)

    def _write(self, folder: Path, kind: str, epoch: int, images: Tensor, columns: int, caption: str) -> None:
        grid = torchvision.utils.make_grid(
            images.float().cpu(), nrow=columns, padding=1, normalize=True, value_range=(-1, 1)
        )
        pixels = grid.mul(255).round().byte().permute(1, 2, 0).numpy()
        pictures.write(folder, kind, epoch, pixels, f"{kind.capitalize()} after epoch {epoch}: {caption}.")


class _Standing(nn.Module):
    """The generator as a function of a batch's number: the paper takes statistics anew before it samples."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.network = sampler.network
        self._sampler = [sampler]  # in a list, or modules would hold each other

    def forward(self, number: Tensor) -> Tensor:
        sampler = self._sampler[0]
        source = generator(sampler.seed, "standing labels", int(number))
        labels = torch.randint(sampler.classes, (BATCH,), generator=source).to(sampler.device)
        # As the samples will be drawn: the paper's statistics are of the same truncation.
        z = sampler.z(BATCH, "standing", int(number), truncation=sampler.truncation)
        y: Tensor = self.network(z, labels)
        return y
