"""BigGAN: shapes, parameters, what reaches what."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from evonorm import NormActivation
from evonorm.layers.table import TABLE, NormAct
from evonorm.models import BigGAN
from evonorm.models.biggan import SIZES

ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


def made(seed: int = 0, **options) -> BigGAN:
    return BigGAN(**{"width": 4, "source": torch.Generator().manual_seed(seed), **options})


def drawn(model: BigGAN, count: int = 2, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, model.generator.latent, generator=source), torch.arange(count) % 10


def trainable(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3])
def test_shapes(size: int, count: int) -> None:
    model = made(size=size)
    z, labels = drawn(model, count)
    images = model(z, labels)
    assert images.shape == (count, 3, size, size)
    assert images.abs().max() <= 1
    assert model.discriminator(images, labels).shape == (count,)


def test_parameters_are_the_published_ones() -> None:
    """At 128 pixels, 1000 classes and width 96: what google/compare_gan's tests count of the paper's networks."""
    with torch.device("meta"):
        model = BigGAN(1000, 128, "bn-relu", width=96)
    assert model.generator.latent == 120
    assert trainable(model.generator) == 70_433_988
    assert trainable(model.discriminator) == 87_982_370


@ROWS
def test_every_layer_trains_both(row: NormAct) -> None:
    """The image depends on every parameter, and so does what the discriminator says."""
    model = made(layer=row.name)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):  # which begins at 0, so that nothing before it has a gradient yet
                parameter.fill_(0.5)
    z, labels = drawn(model, 4)
    images = model(z, labels)
    model.discriminator(images, labels).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # A layer without weight and bias leaves the condition.
    assert without == (set() if row.affine else {"generator.embedding.weight"})
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    sites = [m for m in model.generator.modules() if isinstance(m, NormActivation)]
    assert [site.conditional for site in sites] == [148] * 6 + [None]
    assert {site.layer for site in sites} == {row.name}
    assert not any(isinstance(m, NormActivation) for m in model.discriminator.modules())


@pytest.mark.parametrize("layer", ["bn-relu", "evonorm-s0"])
def test_the_class_and_each_part_of_z_reach_the_image(layer: str) -> None:
    model = made(layer=layer).eval()
    z, labels = drawn(model)
    with torch.no_grad():
        images = model(z, labels)
        assert not torch.equal(model(z, labels + 1), images)
        for start in range(0, model.generator.latent, model.generator.part):
            other = z.clone()
            other[:, start] += 1
            assert not torch.equal(model(other, labels), images)
        judged = model.discriminator(images, labels)
        assert not torch.equal(model.discriminator(images, labels + 1), judged)


def test_a_point_between_classes() -> None:
    model = made().eval()
    z, labels = drawn(model)
    with torch.no_grad():
        features = model.generator.embedding(labels)
        assert torch.equal(model(z, features), model(z, labels))
        assert model(z, (features + features.flip(0)) / 2).isfinite().all()


def test_initial_weights_are_orthogonal_and_seeded() -> None:
    model, same, other = made(), made(), made(seed=1)
    pairs = zip(model.state_dict().values(), same.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(model.generator.embedding.weight, other.generator.embedding.weight)
    weight = model.generator.blocks[0].conv2.parametrizations.weight.original.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), rtol=0, atol=1e-5)
    before = torch.random.get_rng_state()
    made()
    assert torch.equal(torch.random.get_rng_state(), before)
    # The layer changes nothing else, so that runs differ by the layer alone.
    rival = made(layer="bn-relu")
    assert torch.equal(rival.discriminator(*_judged(rival)), model.discriminator(*_judged(model)))


def _judged(model: BigGAN) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32), drawn(model)[1]


@torch.no_grad()
def test_spectral_norms_are_one() -> None:
    model = made().eval()
    weights = [model.generator.first.weight, model.discriminator.embedding.weight]
    weights += [model.generator.blocks[1].norm1.to_weight.weight, model.discriminator.blocks[2].conv1.weight]
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(("size", "attention"), [(32, 16), (32, 8), (64, 32), (128, 64), (128, 32)])
def test_attention_stands_at_its_side_in_both(size: int, attention: int) -> None:
    model = made(size=size, attention=attention)
    sides = []
    for network in (model.generator, model.discriminator):
        (block,) = network.attention.values()
        block.register_forward_hook(lambda _, args, y: sides.append(y.shape[-1]))
    z, labels = drawn(model, 1)
    model.discriminator(model(z, labels), labels)
    assert sides == [attention, attention]


def test_without_attention() -> None:
    model = made(attention=0)
    assert len(model.generator.attention) == len(model.discriminator.attention) == 0
    z, labels = drawn(model)
    assert model.discriminator(model(z, labels), labels).shape == (2,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 48}, "size must be one of 32, 64, 128: got size=48"),
        ({"attention": 64}, "attention must be the side of a map of both networks, 8 or 16 for size=32, or 0 for none"),
    ],
)
def test_what_is_not_there(options, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        made(**options)
