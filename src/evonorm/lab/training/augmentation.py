"""The report's augmentation: a random affine map and a flip for each image, one grid_sample a batch."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# ImageDataGenerator's arguments in the report. Its shear is read in degrees by keras-preprocessing 1.1.2: hardly any.
ROTATION_DEGREES = 18.0
SHIFT_FRACTION = 0.2
SHEAR_DEGREES = 0.15
ZOOM_RANGE = (0.85, 1.15)
FLIP_PROBABILITY = 0.5


def augment(images: Tensor, generator: torch.Generator, *, centre: Literal["report", "true"] = "report") -> Tensor:
    """Each image rotated, shifted, sheared and zoomed about `centre`, edges repeated outward, then flipped or not.

    images: (N, C, H, W), float32 or float64; the result is alike. generator, centre: see draw.
    """
    count, _, height, width = images.shape
    return apply(images, *draw(count, height, width, generator, centre=centre))


def draw(
    count: int, height: int, width: int, generator: torch.Generator, *, centre: Literal["report", "true"] = "report"
) -> tuple[Tensor, Tensor]:
    """What becomes of so many images: maps for `warp`, float64 (N, 2, 3), and whether each is flipped, bool (N,).

    generator: a CPU generator, whatever the images' device, so that a seed means the same everywhere. centre: `report`
    is keras-preprocessing 1.1.2's, one pixel past the true one; `true` is the image's.
    """
    linear, offset = _random_affine(count, height, width, generator)
    theta = grid_theta(linear, offset, height, width, centre=centre)
    return theta, torch.rand(count, generator=generator) < FLIP_PROBABILITY


def apply(images: Tensor, theta: Tensor, flip: Tensor) -> Tensor:
    """The images as `draw` has it: nothing but operations on their device if theta and flip lie there."""
    moved = warp(images, theta.to(images))
    return torch.where(flip.to(images.device).view(-1, 1, 1, 1), moved.flip(-1), moved)


def warp(images: Tensor, theta: Tensor) -> Tensor:
    """images: (N, C, H, W) through the maps theta: (N, 2, 3), bilinear, edges repeated outward."""
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def grid_theta(linear: Tensor, offset: Tensor, height: int, width: int, *, centre: Literal["report", "true"]) -> Tensor:
    """The maps as affine_grid wants them: (N, 2, 3).

    linear: (N, 2, 2), offset: (N, 2): output to input in pixels, coordinates (row, column) about the centre.
    """
    if centre == "report":
        offset = offset + (torch.eye(2, dtype=linear.dtype) - linear).sum(-1)
    # affine_grid counts (x, y) in units of half the image.
    linear, offset = linear.flip(1, 2), offset.flip(1)
    size = torch.tensor([width, height], dtype=linear.dtype)
    return torch.cat([linear * size / size.unsqueeze(1), (2 * offset / size).unsqueeze(2)], dim=2)


def _random_affine(count: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)

    angle = uniform(-1, 1) * math.radians(ROTATION_DEGREES)
    shear = uniform(-1, 1) * math.radians(SHEAR_DEGREES)
    zoom = torch.stack([uniform(*ZOOM_RANGE), uniform(*ZOOM_RANGE)], 1)
    shift = torch.stack([uniform(-1, 1) * SHIFT_FRACTION * height, uniform(-1, 1) * SHIFT_FRACTION * width], 1)
    rotation = _matrix(angle.cos(), -angle.sin(), angle.sin(), angle.cos())
    shearing = _matrix(torch.ones_like(shear), -shear.sin(), torch.zeros_like(shear), shear.cos())
    linear = rotation @ shearing @ torch.diag_embed(zoom)
    return linear, (rotation @ shift.unsqueeze(2)).squeeze(2)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)
