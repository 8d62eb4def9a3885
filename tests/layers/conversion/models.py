"""Models of torchvision and timm at sizes that take a second, and how each is run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tests.layers.conversion.checks import Run
from tests.tensors import noise

FAMILIES = ("classification", "segmentation", "detection", "video", "optical flow")


def torchvision_names() -> Iterator[tuple[str, str]]:
    """(family, name) of every model but the quantized ones, whose integers have nothing to convert."""
    from torchvision import models

    homes = {"detection": "detection", "segmentation": "segmentation", "video": "video", "optical flow": "optical_flow"}
    listed = {family: models.list_models(getattr(models, home)) for family, home in homes.items()}
    listed["classification"] = models.list_models(models)
    for family in FAMILIES:
        yield from ((family, name) for name in listed[family])


def torchvision_model(name: str, family: str) -> tuple[nn.Module, Run, Run | None]:
    """The model with random weights, how to evaluate it, how to run a training step if that is another way."""
    from torchvision import models

    arguments: dict[str, Any] = {"weights": None}
    if family in ("detection", "segmentation"):
        arguments["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        arguments["init_weights"] = False
    model = models.get_model(name, **arguments)
    if family == "detection":
        return (model, *_detection(model))
    if family == "optical flow":
        pair = noise(2, 3, 128, 128), noise(2, 3, 128, 128)
        return model, lambda m: m(*pair, num_flow_updates=1), None
    if family == "video":
        frames, side = (16, 224) if name.startswith(("mvit", "swin", "s3d")) else (4, 32)
        x = noise(2, 3, frames, side, side)
    else:
        side = 224 if name.startswith(("vit", "maxvit")) else 299 if name == "inception_v3" else 64
        x = noise(2, 3, side, side)
    return model, lambda m: m(x), None


def _detection(model: Any) -> tuple[Run, Run]:
    model.transform.min_size, model.transform.max_size = (128,), 128
    if model.transform.fixed_size is not None:
        model.transform.fixed_size = (300, 300)
    # With random weights every score is low; boxes are wanted all the same, or there would be nothing to compare.
    for part in (model, getattr(model, "roi_heads", None)):
        if hasattr(part, "score_thresh"):
            part.score_thresh = 0.0
    images = [noise(3, 128, 128) for _ in range(2)]
    target: dict[str, torch.Tensor] = {
        "boxes": torch.tensor([[8.0, 8.0, 100.0, 100.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, 128, 128, dtype=torch.uint8),
        "keypoints": torch.full((1, 17, 3), 30.0),
    }

    def step(m: Any) -> Any:
        if hasattr(m, "roi_heads"):
            return m(images, [target, target])
        # The loss of a one-stage detector reaches a level's head only where a box matches there.
        features = list(m.backbone(m.transform(images)[0].tensors).values())
        return m.head(features)

    return lambda m: m(images), step


def timm_model(name: str, *, device: str = "cpu") -> tuple[nn.Module, Run]:
    """The model with random weights and how to run it, on small images if it takes them."""
    import timm

    with torch.device(device):
        model = timm.create_model(name)
    given = model.default_cfg.get("input_size") or (3, 224, 224)
    small = (3, 64, 64)
    x = noise(2, *small).to(device)
    try:
        with torch.no_grad():
            model.eval()(x)
    except Exception:  # it takes its own size alone
        x = noise(2, *given).to(device)
    return model, lambda m: m(x)
