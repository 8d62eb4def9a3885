"""Mask R-CNN with our layers in backbone, pyramid and heads: torchvision's, and one small enough for two cores.

Source: He et al., "Mask R-CNN", 2017, arXiv 1703.06870; Lin et al., "Feature Pyramid Networks", 2017, arXiv 1612.03144.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evonorm.layers.conversion import Plan, plan
from evonorm.layers.conversion.policies import Without
from evonorm.layers.functional import Backend
from evonorm.layers.modules import NormActivation
from evonorm.spelling import meant

SMALL, LARGE = "mask-rcnn-small", "maskrcnn_resnet50_fpn_v2"
NAMES = (SMALL, LARGE)
# The small one's: pictures' shorter side, channels of pyramid and heads, and how many regions it looks at.
_SIDE, _CHANNELS, _REGIONS = 96, 64, 32


def build(
    name: str,
    classes: int,
    layer: str | None = "evonorm-s0",
    *,
    groups: int | None = 32,
    eps: float | None = None,
    momentum: float = 0.1,
    backend: Backend = "auto",
    plain_norms: Without = "affine",
) -> tuple[nn.Module, Plan]:
    """The detector called `name` with random weights and `layer` at its sites, and the plan by which they got there.

    name: `maskrcnn_resnet50_fpn_v2`, torchvision's, with norms in backbone, pyramid and heads; or `mask-rcnn-small`, a
    ResNet of one block a stage and heads of 64 channels, for pictures of 96 pixels. Training, it takes pictures, a
    list of (3, H, W) in [0, 1], and targets, a list of dicts with boxes (n, 4), labels (n,) from 1 and masks (n, H, W),
    and gives a dict of losses; in evaluation pictures alone, and gives boxes, labels, scores and masks for each.

    classes: without the background. layer: None keeps torchvision's own BatchNorm and ReLU. layer, groups, eps,
    momentum, backend, plain_norms (its without_activation): as in evonorm.plan. Weights are drawn from torch's global
    generator. Raises ValueError if no detector has this name.
    """
    original = _small(classes) if known(name) == SMALL else _large(classes)
    planned = plan(
        original,
        {} if layer is None else layer,
        groups=groups,
        eps=eps,
        momentum=momentum,
        backend=backend,
        without_activation=plain_norms,
    )
    model = planned.apply()
    for place, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
        # No kernel serves a layer without its activation, nor a head that no region is left for.
        if isinstance(module, NormActivation) and backend == "kernel":
            if not module.activate:
                module.backend = "reference"
            elif place.startswith("roi_heads."):
                module.backend = "auto"
    return model, planned


def known(name: str) -> str:
    """`name` as it is. Raises ValueError if no detector has it."""
    if name not in NAMES:
        raise ValueError(f"no detector is called {name!r}{meant(name, NAMES)}; choose from {', '.join(NAMES)}")
    return name


@torch.no_grad()
def freeze(model: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]]) -> None:
    """Gives every BatchNorm the statistics that it has on these pictures, and keeps them, and weight and bias, so.

    In place: torchvision's FrozenBatchNorm2d takes their places. A detector that is fine-tuned freezes those it was
    trained with; one with random weights has none but those that its first pictures give it.
    """
    from torchvision.ops import FrozenBatchNorm2d

    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for norm in norms.values():
        norm.momentum = 1.0
    model.train()(images, targets)
    for name, norm in norms.items():
        frozen = FrozenBatchNorm2d(norm.num_features, eps=norm.eps).to(norm.weight.device)
        frozen.load_state_dict({key: value for key, value in norm.state_dict().items() if key in frozen.state_dict()})
        model.set_submodule(name, frozen)


def _large(classes: int) -> nn.Module:
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    model: nn.Module = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=classes + 1)
    return model


def _small(classes: int) -> nn.Module:
    """As torchvision puts its own together, with fewer of everything."""
    from torchvision.models.detection import MaskRCNN, faster_rcnn, mask_rcnn
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.resnet import BasicBlock, ResNet

    norm, channels = nn.BatchNorm2d, _CHANNELS
    stages = {f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)}
    backbone = BackboneWithFPN(
        ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=norm), stages, [64, 128, 256, 512], channels, norm_layer=norm
    )
    # One size a level: a quarter of the picture's side is what an object has, more or less.
    anchors = AnchorGenerator(tuple((side,) for side in (12, 20, 32, 48, 64)), ((0.5, 1.0, 2.0),) * 5)
    few: dict[str, Any] = {
        **{"rpn_pre_nms_top_n_train": 200, "rpn_pre_nms_top_n_test": 200},
        **{"rpn_post_nms_top_n_train": 100, "rpn_post_nms_top_n_test": 50, "rpn_batch_size_per_image": 64},
        **{"box_batch_size_per_image": _REGIONS, "box_detections_per_img": 20},
    }
    model: nn.Module = MaskRCNN(
        backbone,
        min_size=_SIDE,
        max_size=2 * _SIDE,
        rpn_anchor_generator=anchors,
        rpn_head=faster_rcnn.RPNHead(channels, anchors.num_anchors_per_location()[0]),
        box_head=faster_rcnn.FastRCNNConvFCHead((channels, 7, 7), [channels] * 2, [2 * channels], norm_layer=norm),
        box_predictor=faster_rcnn.FastRCNNPredictor(2 * channels, classes + 1),
        mask_head=mask_rcnn.MaskRCNNHeads(channels, [channels] * 2, 1, norm_layer=norm),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(channels, channels, classes + 1),
        **few,
    )
    return model
