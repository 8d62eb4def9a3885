"""Networks by name: what is built, where its layers stand, how it starts, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evonorm import NormActivation
from evonorm.layers import kernels
from evonorm.models import MiniInception, build
from evonorm.models.zoo import groups_in_force


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sites(model: nn.Module) -> list[NormActivation]:
    return [module for module in model.modules() if isinstance(module, NormActivation)]


def kept(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=seeded(1))


# Sites: the stem and one a block in ResNet-18; two of three norms in the blocks of MobileNetV2, none where it projects.
@pytest.mark.parametrize(
    ("name", "count", "others"), [("resnet18", 9, 11), ("mobilenet_v2", 35, 17), ("timm:test_efficientnet", 9, 4)]
)
@pytest.mark.parametrize("layer", ["evonorm-s0", "evonorm-b0", "none"])
def test_every_layer_of_the_table_trains_at_every_site(name: str, count: int, others: int, layer: str) -> None:
    model = build(name, 7, layer, groups=8, momentum=0.25, eps=1e-4, generator=seeded())
    assert model.training
    assert len(sites(model)) == count
    assert {(s.layer, s.activate) for s in sites(model)} == {(layer, True)}
    assert {(s.eps, s.momentum) for s in sites(model)} == {(1e-4, 0.25)}
    assert len(kept(model)) == others
    assert {norm.momentum for norm in kept(model)} == {0.25}
    logits = model(images())
    assert logits.shape == (2, 7)
    (logits * torch.randn(2, 7, generator=seeded(2))).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("layer", ["evonorm-s0", "bn-relu", "evonorm-b0"])
def test_timms_own_evonorm_gives_its_sites_to_any_layer(layer: str) -> None:
    """With the activation off where timm's is, whatever becomes of other norms without activation."""
    model = build("timm:test_efficientnet_evos", 7, layer, groups=8, generator=seeded())
    assert [(site.layer, site.activate) for site in sites(model)].count((layer, False)) == 4
    assert len(sites(model)) == 13
    logits = model(images())
    (logits * torch.randn(2, 7, generator=seeded(2))).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_mini_inception_is_ours() -> None:
    model = build("mini-inception", 7, "evonorm-b0", groups=8, momentum=0.3, eps=1e-4, generator=seeded())
    assert isinstance(model, MiniInception)
    assert model.dropout.p == 0.5
    assert {(s.layer, s.eps, s.momentum) for s in sites(model)} == {("evonorm-b0", 1e-4, 0.3)}
    assert build("mini-inception", 7, dropout=0.0).dropout.p == 0.0


def test_weights_come_from_the_generator_whatever_the_layer() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (
        build("timm:test_resnet", 10, layer, generator=seeded(seed))
        for layer, seed in (("evonorm-s0", 3), ("bn-relu", 3), ("bn-relu", 4))
    )
    assert torch.equal(before, torch.get_rng_state())
    convolutions = [name for name, module in one.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(convolutions) > 10
    for name in convolutions:
        weight = one.get_submodule(name).weight
        assert torch.equal(weight, same.get_submodule(name).weight)
        assert not torch.equal(weight, other.get_submodule(name).weight)


@pytest.mark.parametrize(("plain_norms", "with_layer"), [("keep", 8), ("affine", 15), ("replace", 15)])
def test_norms_without_activation(plain_norms: str, with_layer: int) -> None:
    model = build("timm:test_resnet", 10, "evonorm-s0", plain_norms=plain_norms, generator=seeded())
    assert (len(sites(model)), len(kept(model))) == (with_layer, 15 - with_layer)
    off = [site for site in sites(model) if not site.activate]
    assert len(off) == (7 if plain_norms == "affine" else 0)


@pytest.mark.skipif(kernels.reason() is not None, reason="no kernels here")
def test_a_kernel_serves_the_layers_that_it_can() -> None:
    """Without activation an EvoNorm has no kernel: asking for kernels is no error there."""
    model = build("timm:test_resnet", 10, plain_norms="affine", backend="kernel", generator=seeded())
    assert {(site.activate, site.backend) for site in sites(model)} == {(True, "kernel"), (False, "reference")}
    assert model(images()).isfinite().all()


def test_groups_in_force_are_those_of_layers_that_take_group_statistics() -> None:
    def found(layer: str, plain_norms: str = "keep") -> dict[int, int]:
        return groups_in_force(build("timm:test_resnet", 10, layer, plain_norms=plain_norms, generator=seeded()))

    assert found("evonorm-s0") == {16: 16, 32: 32, 48: 24, 96: 32}
    assert found("bn-relu") == {}
    # 64 is a width of norms without activation alone: an EvoNorm there is affine, a GroupNorm takes its groups.
    widths = {site.channels for site in sites(build("timm:test_resnet", 10, plain_norms="affine", generator=seeded()))}
    assert set(found("gn-relu", "affine")) == widths
    assert set(found("evonorm-s0", "affine")) == {16, 32, 48, 96}


def test_dropout_is_the_models_own_unless_given() -> None:
    def rates(name: str, dropout: float | None) -> list[float]:
        model = build(name, 10, dropout=dropout, generator=seeded())
        return [module.p for module in model.modules() if isinstance(module, nn.Dropout)]

    assert rates("mobilenet_v2", None) == [0.2]
    assert rates("mobilenet_v2", 0.4) == [0.4]
    assert rates("resnet18", None) == []
    assert rates("resnet18", 0.4) == [0.4]
    assert build("timm:test_resnet", 10, dropout=0.4).drop_rate == 0.4


def test_a_dropout_that_was_added_drops() -> None:
    model = build("resnet18", 10, "evonorm-s0", dropout=0.5, generator=seeded())
    # Statistics of the norms that were kept move in training, and are not what is asked here.
    for norm in kept(model):
        norm.eval()
    x = images(1)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet8",
            r"no model is called 'resnet8'; did you mean 'resnet18'.*; choose from mini-inception, a",
        ),
        ("mini_inception", "did you mean 'mini-inception'"),
        ("torchvision:mobilenetv2", "did you mean .*'mobilenet_v2'"),
        ("fasterrcnn_resnet50_fpn", "torchvision's fasterrcnn_resnet50_fpn is no image classifier; choose from"),
        ("torchvision:r3d_18", "torchvision's r3d_18 is no image classifier"),
        ("quantized_resnet18", "torchvision's quantized_resnet18 is no image classifier"),
        ("timm:resnet8", "no model is called 'timm:resnet8'; did you mean 'timm:resnet18'"),
        ("timm:resnet18.a1_in1k", "names trained weights, which are never loaded; write timm:resnet18$"),
        ("squeezenet1_1", "squeezenet1_1 has no normalization that a layer could replace"),
        (
            "timm:test_vit",
            r"of timm:test_vit can be replaced .*: .*, a LayerNorm, is kept: .*; choose another model$",
        ),
    ],
)
def test_what_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, 10)


def test_a_way_to_replace_norms_without_activation_is_named() -> None:
    with pytest.raises(ValueError, match=r"kept: an addition follows; .* norms that no activation follows too"):
        build("timm:repvgg_a0", 10)


def test_networks_that_take_no_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="timm:levit_128s does not take 32x32 pixels: "):
        build("timm:levit_128s", 10)
