"""The report's network: its parameter counts, shapes, sites and initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evonorm import NormActivation
from evonorm.models import MiniInception
from evonorm.models.zoo import groups_in_force

WITHOUT_LAYERS = 1_649_402  # Keras' count for the report's network without any normalization


@pytest.mark.parametrize(
    ("layer", "more"),
    [("none", 0), ("bn-relu", 3_424), ("evonorm-b0", 5_136), ("evonorm-s0", 5_136), ("evonorm-s2", 3_424)],
)
def test_trainable_parameters_are_the_reports(layer: str, more: int) -> None:
    model = MiniInception(layer=layer)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == WITHOUT_LAYERS + more


def test_sites_and_widths() -> None:
    sites = [module for module in MiniInception().modules() if isinstance(module, NormActivation)]
    assert len(sites) == 19
    assert {site.channels for site in sites} == {96, 32, 48, 80, 112, 64, 160, 176}
    assert groups_in_force(MiniInception()) == {96: 32, 32: 32, 48: 24, 80: 20, 112: 28, 64: 32, 160: 32, 176: 22}
    assert groups_in_force(MiniInception(layer="bn-relu")) == {}


def test_groups_that_do_not_divide_a_width() -> None:
    with pytest.raises(ValueError, match="groups must divide channels: got channels=48, groups=32"):
        MiniInception(fit_groups=False)
    assert set(groups_in_force(MiniInception(groups=8, fit_groups=False)).values()) == {8}


@pytest.mark.parametrize("layer", ["none", "bn-relu", "evonorm-b0", "evonorm-s0"])
def test_logits_and_gradients(layer: str) -> None:
    model = MiniInception(classes=7, layer=layer)
    logits = model(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_larger_images_are_pooled_over_their_whole_map() -> None:
    model = MiniInception(layer="bn-relu").eval()
    maps = []
    model.inception8.register_forward_hook(lambda module, args, y: maps.append(y))
    logits = model(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert maps[0].shape == (2, 336, 15, 15)
    torch.testing.assert_close(logits, model.classifier(maps[0].mean((2, 3))))


def test_initial_weights_are_glorot_uniform_and_seeded() -> None:
    def make(seed: int) -> MiniInception:
        return MiniInception(generator=torch.Generator().manual_seed(seed))

    model = make(5)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            receptive = module.weight[0, 0].numel()
            bound = (6 / (receptive * (module.weight.shape[0] + module.weight.shape[1]))) ** 0.5
            assert 0.95 * bound < module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
            assert not module.bias.any()
    pairs = zip(model.parameters(), make(5).parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(model.stem.conv.weight, make(6).stem.conv.weight)
    # Layers start the same whatever they are, so that runs differ by the layer alone.
    other = MiniInception(layer="none", generator=torch.Generator().manual_seed(5))
    assert torch.equal(model.classifier.weight, other.classifier.weight)
