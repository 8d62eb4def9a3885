"""A little data set of real arrays: four classes told apart by colour, with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from evonorm.lab.data.sets import ImageDataset


def pictures(train: int = 64, test: int = 20) -> ImageDataset:
    random = np.random.default_rng(4)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [160, 160, 40]])

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = random.permutation(np.arange(count) % 4)
        images = colours[labels][:, None, None, :] + random.normal(0, 40, (count, 32, 32, 3))
        return images.clip(0, 255).astype(np.uint8), labels.astype(np.int64)

    return ImageDataset("pictures", "0123456789abcdef", ("red", "green", "blue", "sand"), *split(train), *split(test))


def written(folder: Path) -> str:
    """The same pictures as a folder of images; its name."""
    data = pictures()
    for part, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / part / data.classes[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return str(folder)
