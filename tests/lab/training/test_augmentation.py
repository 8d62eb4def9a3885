"""The augmentation against scipy.ndimage, image by image, and its distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from evonorm.lab.training import augmentation


def scipy_warp(image: np.ndarray, linear: np.ndarray, offset: np.ndarray, centre: str) -> np.ndarray:
    """As keras-preprocessing does it: channel by channel, about its centre, order 1, mode nearest."""
    size = np.array(image.shape[1:])
    middle = size / 2 + 0.5 if centre == "report" else size / 2 - 0.5
    shift = middle - linear @ middle + offset
    return np.stack([affine_transform(c, linear, shift, order=1, mode="nearest") for c in image])


@pytest.mark.parametrize("centre", ["report", "true"])
@pytest.mark.parametrize("size", [(32, 32), (20, 31)], ids=str)
def test_warp_is_scipys(centre: str, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(16, 3, *size, generator=generator, dtype=torch.float64)
    linear, offset = augmentation._random_affine(16, *size, generator)
    theta = augmentation.grid_theta(linear, offset, *size, centre=centre)
    ours = augmentation.warp(images, theta).numpy()
    for image, result, matrix, shift in zip(images.numpy(), ours, linear.numpy(), offset.numpy(), strict=True):
        np.testing.assert_allclose(result, scipy_warp(image, matrix, shift, centre), atol=1e-12)
    in_float32 = augmentation.warp(images.float(), theta.float())
    np.testing.assert_allclose(in_float32.numpy(), ours, atol=2e-4)


def test_the_two_centres_differ() -> None:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(4, 3, 32, 32, generator=generator)
    report, true = (
        augmentation.augment(images, torch.Generator().manual_seed(1), centre=centre) for centre in ("report", "true")
    )
    assert (report - true).abs().max() > 0.05


def test_matrices_are_rotation_shift_shear_zoom() -> None:
    """One draw undone by hand: R T S Z with the sampled angle, shear and zooms recovered within their ranges."""
    linear, offset = augmentation._random_affine(4000, 32, 32, torch.Generator().manual_seed(3))
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    rest = rotation.transpose(1, 2) @ linear
    shift = (rotation.transpose(1, 2) @ offset.unsqueeze(2)).squeeze(2)
    zoom_x, zoom_y = rest[:, 0, 0], rest[:, :, 1].norm(dim=1)
    shear = torch.atan2(-rest[:, 0, 1], rest[:, 1, 1])
    for values, bound in [
        (angle, math.radians(18)),
        (shear, math.radians(0.15)),
        (shift[:, 0], 6.4),
        (shift[:, 1], 6.4),
        (zoom_x - 1, 0.15),
        (zoom_y - 1, 0.15),
    ]:
        assert 0.99 * bound < values.abs().max() <= bound * (1 + 1e-9)
        assert values.mean().abs().item() < 0.04 * bound
        assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    independent = torch.corrcoef(torch.stack([angle, shear, zoom_x, zoom_y, shift[:, 0], shift[:, 1]]))
    assert (independent - torch.eye(6)).abs().max() < 0.06


def test_half_of_the_images_are_flipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "warp", lambda images, theta: images)
    images = torch.arange(3.0).expand(2000, 1, 2, 3)
    flipped = augmentation.augment(images, torch.Generator().manual_seed(0))[:, 0, 0, 0] == 2
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_seeded_and_within_range() -> None:
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one, again = (augmentation.augment(images, torch.Generator().manual_seed(5)) for _ in range(2))
    other = augmentation.augment(images, torch.Generator().manual_seed(6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 1
    assert one.shape == images.shape
