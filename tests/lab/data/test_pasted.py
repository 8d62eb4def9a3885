"""The generated set: the same bytes for the same seed, and annotations that say what is really seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evonorm.lab.data import coco, pasted
from evonorm.lab.data.pasted import Pasting
from evonorm.lab.data.sets import ImageDataset, load
from evonorm.lab.errors import UserError
from tests.lab.extras import needed

needed("pycocotools", "detection")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def written(folder: Path, source: ImageDataset, seed: int = 0) -> Path:
    pasted.write(Pasting(source, seed, train_pictures=12, val_pictures=6), folder)
    return folder


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load("digits")


@pytest.fixture(scope="module")
def squares() -> ImageDataset:
    """White pictures, which hide what they cover."""
    images = np.full((8, 32, 32, 3), 255, np.uint8)
    labels = np.arange(8) % 2
    return ImageDataset("squares", "0" * 16, ("cat", "dog"), images, labels, images, labels)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, digits: ImageDataset) -> None:
    first = content(written(tmp_path / "one", digits))
    assert len(first) == 12 + 6 + 2
    assert content(written(tmp_path / "two", digits)) == first
    other = content(written(tmp_path / "three", digits, seed=1))
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in first)
    assert Pasting(digits, 0, 12, 6).key != Pasting(digits, 1, 12, 6).key


def test_boxes_and_masks_are_of_what_is_seen(tmp_path: Path, digits: ImageDataset) -> None:
    found = coco.read(written(tmp_path / "set", digits))
    assert found.classes == digits.classes
    assert (len(found.train), len(found.val)) == (12, 6)
    for split in (found.train, found.val):
        for place in range(len(split)):
            objects = split.objects(place)
            assert len(objects.labels)
            assert objects.masks.sum(0).max() == 1  # a pixel is of one object, the one on top
            for box, mask in zip(objects.boxes.astype(int), objects.masks, strict=True):
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_what_is_hidden_is_in_no_mask(tmp_path: Path, squares: ImageDataset) -> None:
    """White squares: every pixel of a mask is white, and of every square at least half is seen."""
    found = coco.read(written(tmp_path / "set", squares)).train
    hidden = 0
    for place in range(len(found)):
        pixels, objects = found.image(place), found.objects(place)
        for mask in objects.masks:
            assert pixels[mask].min() >= 127  # at a turned edge half of what is below shines through
            assert pixels[mask].mean() > 240
        hidden += len(objects.masks) > 1 and (objects.masks.sum((1, 2)) < 0.9 * objects.masks.sum((1, 2)).max()).any()
    assert hidden


def test_training_and_validation_pictures_share_no_digit_and_no_part_of_a_photograph(digits: ImageDataset) -> None:
    train, val = pasted._photographs(train=True), pasted._photographs(train=False)
    assert all(one.shape[1] + other.shape[1] == 640 for one, other in zip(train, val, strict=True))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, squares: ImageDataset) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write pictures to .*set EVONORM_CACHE"):
        written(tmp_path / "file" / "set", squares)
