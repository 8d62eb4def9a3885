"""A little data set of real arrays: four classes told apart by colour, with noise."""

from __future__ import annotations

import numpy as np

from evonorm.lab.data import ImageDataset


def pictures(train: int = 64, test: int = 20) -> ImageDataset:
    random = np.random.default_rng(4)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [160, 160, 40]])

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = random.permutation(np.arange(count) % 4)
        images = colours[labels][:, None, None, :] + random.normal(0, 40, (count, 32, 32, 3))
        return images.clip(0, 255).astype(np.uint8), labels.astype(np.int64)

    return ImageDataset("pictures", "0123456789abcdef", ("red", "green", "blue", "sand"), *split(train), *split(test))
