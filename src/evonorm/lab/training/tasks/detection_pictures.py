"""Detections as a picture: boxes and masks over the pixels, the truth beside what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from evonorm.lab.data.coco import Split

# A detection less sure than this is not drawn; it counts in the average precision all the same.
LEAST_SCORE = 0.3
COLUMNS, SIDE = 3, 192
# One a class, again from the first after the last.
COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#b15cff", "#46f0f0", "#f032e6", "#bcf60c", "#ffffff")


def grid(split: Split, found: Mapping[int, Mapping[str, Tensor]]) -> np.ndarray:
    """These pictures as one, uint8 (H, W, 3), COLUMNS of pairs in a row: left the truth, right what was found.

    found: by the picture's place, as torchvision's detectors give it.
    """
    from torchvision.utils import make_grid

    names = [str(category["name"]) for category in split.categories]
    cells = []
    for place, one in found.items():
        pixels = torch.from_numpy(split.image(place)).permute(2, 0, 1)
        truth = split.objects(place)
        boxes, masks = torch.from_numpy(truth.boxes), torch.from_numpy(truth.masks)
        sure = one["scores"] >= LEAST_SCORE
        labels = (one["labels"][sure] - 1).tolist()
        words = [
            f"{names[label]} {score:.2f}" for label, score in zip(labels, one["scores"][sure].tolist(), strict=True)
        ]
        true_labels = truth.labels.tolist()
        cells += [
            _drawn(pixels, boxes, masks, true_labels, [names[label] for label in true_labels]),
            _drawn(pixels, one["boxes"][sure], one["masks"][sure, 0] >= 0.5, labels, words),
        ]
    whole: Tensor = make_grid(torch.stack(cells), nrow=2 * COLUMNS, padding=2, pad_value=255)
    return whole.permute(1, 2, 0).numpy()


def _drawn(pixels: Tensor, boxes: Tensor, masks: Tensor, labels: Sequence[int], words: list[str]) -> Tensor:
    """uint8 (3, SIDE, SIDE): the picture in its proportions, enlarged before it is drawn on."""
    from torch.nn.functional import interpolate, pad
    from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

    height, width = pixels.shape[1:]
    scale = SIDE / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    picture = interpolate(pixels[None].float(), size, mode="bilinear", antialias=True)[0].round().byte()
    if labels:
        colours = [COLOURS[label % len(COLOURS)] for label in labels]
        large = interpolate(masks[None].float().cpu(), size, mode="nearest")[0] > 0
        picture = draw_segmentation_masks(picture, large, alpha=0.5, colors=colours)
        picture = draw_bounding_boxes(picture, boxes.cpu() * scale, words, colours, fill_labels=True)
    return pad(picture, (0, SIDE - size[1], 0, SIDE - size[0]))
