"""Mask R-CNN: any layer of the table in backbone, pyramid and heads, and BatchNorm frozen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from evonorm.layers.modules import NormActivation
from evonorm.models import mask_rcnn


def batch(pictures: int = 1) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    draw = torch.Generator().manual_seed(0)
    images = [torch.rand(3, 96, 96, generator=draw) for _ in range(pictures)]
    masks = torch.zeros(2, 96, 96, dtype=torch.uint8)
    masks[0, 10:40, 20:44] = masks[1, 50:90, 50:90] = 1
    boxes = torch.tensor([[20.0, 10, 44, 40], [50, 50, 90, 90]])
    return images, [{"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks} for _ in images]


def built(layer: str = "evonorm-s0") -> nn.Module:
    torch.manual_seed(0)
    return mask_rcnn.build(mask_rcnn.SMALL, 3, layer)[0]


@pytest.mark.parametrize("layer", ["bn-relu", "gn-relu", "evonorm-b0", "evonorm-s0"])
def test_every_norm_is_replaced_and_a_step_reaches_every_parameter(layer: str) -> None:
    torch.manual_seed(0)
    model, planned = mask_rcnn.build(mask_rcnn.SMALL, 3, layer)
    assert len(planned.replaced) == len(planned.sites) == 24
    for part in ("backbone.body.", "backbone.fpn.", "roi_heads.box_head.", "roi_heads.mask_head."):
        assert any(site.name.startswith(part) for site in planned.replaced)
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    losses = model(*batch())
    sum(losses.values()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_layers_share_the_seeds_weights() -> None:
    one, other = built("bn-relu").state_dict(), built("evonorm-s0").state_dict()
    shared = [name for name in one if name in other]
    assert len(shared) > 60
    assert all(torch.equal(one[name], other[name]) for name in shared)


@torch.inference_mode()
def test_a_picture_without_detections_is_no_fault() -> None:
    model = built().eval()
    model.roi_heads.score_thresh = 1.1
    found = model(batch()[0])[0]
    assert {name: len(value) for name, value in found.items()} == {"boxes": 0, "labels": 0, "scores": 0, "masks": 0}


def test_frozen_norms_keep_the_statistics_of_their_first_pictures() -> None:
    torch.manual_seed(0)
    model = mask_rcnn.build(mask_rcnn.SMALL, 3, None)[0]
    before = {name: value.clone() for name, value in model.state_dict().items() if "conv" in name}
    images, targets = batch(2)
    mask_rcnn.freeze(model, images, targets)
    frozen = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert len(frozen) == 24
    assert not [module for module in model.modules() if isinstance(module, (nn.BatchNorm2d, NormActivation))]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    seen: list[Tensor] = []  # ReLU works in place
    model.backbone.body.bn1.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    statistics = [module.running_var.clone() for module in frozen]
    model.train()(images, targets)
    # What the first norm gives for the pictures that it was measured on has mean 0 and deviation 1.
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[0].var((0, 2, 3)), torch.ones(64), atol=1e-2, rtol=0)
    model.train()(*batch(1))
    assert all(torch.equal(one.running_var, value) for one, value in zip(frozen, statistics, strict=True))


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(ValueError, match=r"no detector is called 'mask-rcnn-smal'; did you mean 'mask-rcnn-small'\?"):
        mask_rcnn.build("mask-rcnn-smal", 3)
