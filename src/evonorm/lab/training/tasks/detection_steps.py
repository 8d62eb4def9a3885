"""A detector at work: pictures and targets as it takes them, its losses, and what it finds.

torchvision's detectors give losses in training mode alone and detections in evaluation alone. Here their parts are
called in their order, so that validation has both from one pass of the backbone, and bf16 stays in it: a box in bf16
would be rounded to half pixels.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evonorm.lab.data.coco import Split

Target = dict[str, Tensor]
# What the losses come down to, each a mean over regions.
LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")


def batch(split: Split, places: Sequence[int], device: torch.device) -> tuple[list[Tensor], list[Target]]:
    """Pictures (3, H, W) in [0, 1], and boxes (n, 4), labels (n,) from 1 and masks (n, H, W) of each."""
    images, targets = [], []
    for place in places:
        objects = split.objects(place)
        images.append(torch.from_numpy(split.image(place)).to(device).permute(2, 0, 1).float() / 255)
        targets.append(
            {
                "boxes": torch.from_numpy(objects.boxes).to(device),
                "labels": torch.from_numpy(objects.labels).to(device) + 1,
                "masks": torch.from_numpy(objects.masks).to(device, torch.uint8),
            }
        )
    return images, targets


def losses(model: Any, images: list[Tensor], targets: list[Target], *, bf16: bool = False) -> Tensor:
    """The sum of LOSSES, as training has it; the model's mode decides what its norms do."""
    inputs, scaled = model.transform(images, targets)
    return _losses(model, inputs, _features(model, inputs, bf16), scaled)


def judged(
    model: Any, images: list[Tensor], targets: list[Target], *, bf16: bool = False
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """In evaluation: the loss, and boxes, labels, scores and masks of what is found in each picture."""
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    inputs, scaled = model.transform(images, targets)
    features = _features(model, inputs, bf16)
    loss = _losses(model, inputs, features, scaled)
    proposals, _ = model.rpn(inputs, features)
    found, _ = model.roi_heads(features, proposals, inputs.image_sizes)
    return loss, model.transform.postprocess(found, inputs.image_sizes, sizes)


def _features(model: Any, inputs: Any, bf16: bool) -> OrderedDict[str, Tensor]:
    with torch.autocast(inputs.tensors.device.type, torch.bfloat16, enabled=bf16):
        found = model.backbone(inputs.tensors)
    return OrderedDict((name, map.float()) for name, map in found.items())


def _losses(model: Any, inputs: Any, features: OrderedDict[str, Tensor], targets: list[Target]) -> Tensor:
    with _sampling(model.rpn), _sampling(model.roi_heads):
        proposals, of_regions = model.rpn(inputs, features, targets)
        _, of_objects = model.roi_heads(features, proposals, inputs.image_sizes, targets)
    each: dict[str, Tensor] = of_regions | of_objects
    return torch.stack([each[name] for name in LOSSES]).sum()


@contextlib.contextmanager
def _sampling(part: nn.Module) -> Iterator[None]:
    """The part takes targets and gives losses, whatever mode the norms in it are in."""
    training, part.training = part.training, True
    try:
        yield
    finally:
        part.training = training
