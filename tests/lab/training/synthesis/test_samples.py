"""Noise, truncation, standing statistics, grids."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from evonorm.lab.records import pictures
from evonorm.lab.training.synthesis import samples
from evonorm.lab.training.synthesis.samples import Sampler, noise
from evonorm.models import BigGAN


@pytest.fixture(autouse=True)
def _few_standing_batches(monkeypatch) -> None:
    monkeypatch.setattr(samples, "STANDING", 2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(layer: str = "evonorm-s0"):
    return BigGAN(10, 32, layer, width=2, source=generator()).generator


def test_noise_is_seeded_and_truncated() -> None:
    z = noise(2000, 5, generator())
    assert torch.equal(z, noise(2000, 5, generator()))
    assert z.std().item() == pytest.approx(1, abs=0.03)
    cut = noise(2000, 5, generator(), truncation=0.5)
    assert cut.abs().max() <= 0.5
    assert 0.27 < cut.std().item() < 0.3  # of a normal cut at half a deviation: 0.2840


@pytest.mark.parametrize("layer", ["evonorm-s0", "bn-relu"])
def test_samples_follow_from_seed_labels_and_network_alone(layer: str) -> None:
    net = network(layer)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    labels = torch.arange(7)
    one = torch.cat([*Sampler(net, 3, classes=10).of(labels)])
    torch.randn(5)  # whatever else was drawn
    other = torch.cat([*Sampler(copy.deepcopy(net), 3, classes=10).of(labels)])
    assert one.shape == (7, 3, 32, 32)
    assert torch.equal(one, other)
    assert not torch.equal(one, torch.cat([*Sampler(net, 4, classes=10).of(labels)]))
    # The training's own statistics and vectors are as they were.
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training


def test_statistics_are_those_of_the_samples() -> None:
    """A batch norm whose running statistics are far off is put right."""
    net = network("bn-relu")
    sampler = Sampler(net, 0, classes=10)
    with torch.no_grad():
        net.norm.running_var.fill_(1e6)
    again = Sampler(net, 0, classes=10)
    torch.testing.assert_close(again.network.norm.running_var, sampler.network.norm.running_var)
    assert again.network.norm.running_var.max() < 1e3


def test_grids(tmp_path) -> None:
    sampler = Sampler(network(), 0, classes=10)
    assert sampler.grid().shape == (80, 3, 32, 32)
    between = sampler.interpolation()
    assert between.shape == (90, 3, 32, 32)
    with torch.no_grad():
        z = sampler.z(10, "interpolation")
        ends = sampler.network(z[3:4].expand(2, -1), torch.tensor([3, 4]))
    torch.testing.assert_close(between[[27, 35]], ends)  # the fourth row goes from class 3 to class 4
    sampler.write(tmp_path, 2, "by nobody")
    samples, interpolation = sorted(pictures.of_run(tmp_path), key=lambda one: one.kind, reverse=True)
    assert (samples.epoch, samples.size) == (2, (10 * 33 + 1, 8 * 33 + 1))
    assert samples.caption == "Samples after epoch 2: a column a class, a row a noise; by nobody."
    assert interpolation.caption.startswith("Interpolation after epoch 2: each row from one class to the next")
    picture = np.asarray(Image.open(samples.path))
    expected = ((sampler.grid()[0] + 1) / 2 * 255).permute(1, 2, 0).numpy()
    assert np.abs(picture[1:33, 1:33] - expected).max() <= 1
