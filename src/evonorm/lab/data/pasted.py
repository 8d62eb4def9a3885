"""A set for detection that needs no download: small pictures pasted, scaled and turned on photographs.

The pictures are those of any set for classification, the photographs the two that scikit-learn ships. What is written
is a folder in COCO's format. A mask is what is seen of an object: what another hides is in the other's mask alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from evonorm.lab.data.coco import SPLITS
from evonorm.lab.data.sets import ImageDataset
from evonorm.lab.errors import UserError

# Counted up when the same seed comes to give other pictures.
DRAWING = 1
SIZE = 96
TRAIN_PICTURES, VAL_PICTURES = 1_600, 200
MOST_OBJECTS = 4
SIDES = (0.22, 0.45)
DEGREES = 30.0
# No object is hidden, by others or by the edge, beyond this part of it: less can hardly be told from another class.
LEAST_SEEN = 0.5
TRIES = 8
# The photographs' right part is kept for validation.
TRAIN_PART = 0.7


@dataclass(frozen=True)
class Pasting:
    """What the pictures are made of; its `key` is the same where they are.

    source: the pictures that are pasted, of which train and test stay apart. seed: of all that is drawn.
    """

    source: ImageDataset
    seed: int
    train_pictures: int
    val_pictures: int

    @property
    def key(self) -> str:
        """16 hex digits."""
        made_of = (DRAWING, SIZE, self.source.fingerprint, self.seed, self.train_pictures, self.val_pictures)
        return hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]

    @property
    def notice(self) -> str:
        """What a reader of results must know."""
        return f"These are pictures of {self.source.name} pasted on two photographs, drawn with seed {self.seed}."


def write(pasting: Pasting, folder: Path) -> None:
    """Writes {train,val}/images and annotations.json: the same bytes for the same Pasting, all of it or nothing.

    Raises UserError if `folder` cannot be written.
    """
    beside = folder.with_name(f"{folder.name}.part")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        for split, count in zip(SPLITS, (pasting.train_pictures, pasting.val_pictures), strict=True):
            _write_split(pasting, split, count, beside / split)
        shutil.rmtree(folder, ignore_errors=True)
        beside.replace(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise UserError(f"cannot write pictures to {folder}: {error.strerror}; set EVONORM_CACHE to another") from error


class _Object(NamedTuple):
    """What lies on a picture. seen: bool (SIZE, SIZE); area: pixels of the whole of it, hidden ones too."""

    label: int
    seen: np.ndarray
    area: int


def _write_split(pasting: Pasting, split: str, count: int, folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for place, (pixels, objects) in enumerate(_pictures(pasting, split, count)):
        name = f"{place:06d}.png"
        # Not compressed: libraries that compress differ in the bytes they write.
        Image.fromarray(pixels).save(folder / "images" / name, compress_level=0)
        images.append({"id": place + 1, "file_name": name, "width": SIZE, "height": SIZE})
        for label, mask in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": place + 1, **_annotation(label, mask)})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(pasting.source.classes)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def _annotation(label: int, seen: np.ndarray) -> dict[str, Any]:
    from pycocotools import mask

    runs = mask.encode(np.asfortranarray(seen, np.uint8))
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "category_id": label + 1,
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(seen.sum()),
        "iscrowd": 0,
        "segmentation": {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")},
    }


def _pictures(pasting: Pasting, split: str, count: int) -> Iterator[tuple[np.ndarray, list[tuple[int, np.ndarray]]]]:
    """Pixels, and for each object its label and where it is seen: bool (SIZE, SIZE)."""
    source = pasting.source
    train = split == SPLITS[0]
    images, labels = (source.train_images, source.train_labels) if train else (source.test_images, source.test_labels)
    photographs = _photographs(train=train)
    for place in range(count):
        random = np.random.default_rng([pasting.seed, SPLITS.index(split), place])
        pixels = _background(photographs, random)
        objects: list[_Object] = []
        for _ in range(random.integers(1, MOST_OBJECTS + 1)):
            chosen = int(random.integers(len(images)))
            colour = random.integers(0, 256, 3) if source.name == "digits" else None
            stamp = _turned(images[chosen], colour, random)
            objects = _pasted(pixels, objects, int(labels[chosen]), stamp, random)
        yield pixels, [(one.label, one.seen) for one in objects]


def _photographs(*, train: bool) -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    parts = []
    for photograph in load_sample_images().images:
        edge = int(TRAIN_PART * photograph.shape[1])
        parts.append(photograph[:, :edge] if train else photograph[:, edge:])
    return parts


def _background(photographs: Sequence[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """A square of a photograph, of any place and scale, mirrored half the time: uint8 (SIZE, SIZE, 3)."""
    photograph = photographs[int(random.integers(len(photographs)))]
    side = int(random.integers(SIZE // 2, min(photograph.shape[:2]) + 1))
    top, left = (int(random.integers(length - side + 1)) for length in photograph.shape[:2])
    square = Image.fromarray(photograph[top : top + side, left : left + side])
    pixels = np.array(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    return pixels[:, ::-1].copy() if random.integers(2) else pixels


def _turned(image: np.ndarray, colour: np.ndarray | None, random: np.random.Generator) -> np.ndarray:
    """The picture scaled and turned: float (h, w, 4), RGB and how far it covers what is below, all in [0, 255].

    colour: of ink, where the picture is a drawing whose light parts are what covers; None: the picture covers whole.
    """
    side = round(SIZE * random.uniform(*SIDES))
    cover = np.full(image.shape[:2], 255, np.uint8)
    if colour is not None:
        cover = image.max(2)
        # Its lightest channel full and its darkest empty: a colour that the photographs hardly have.
        colour[[colour.argmax(), colour.argmin()]] = 255, 0
        image = np.broadcast_to(colour.astype(np.uint8), image.shape)
    whole = Image.fromarray(np.dstack([image, cover])).resize((side, side), Image.Resampling.BILINEAR)
    turned = whole.rotate(random.uniform(-DEGREES, DEGREES), Image.Resampling.BILINEAR, expand=True)
    return np.asarray(turned, np.float32)


def _pasted(
    pixels: np.ndarray, objects: list[_Object], label: int, stamp: np.ndarray, random: np.random.Generator
) -> list[_Object]:
    """The objects with one more, drawn into `pixels` where it hides none too far; as they were if there is no place."""
    height, width = stamp.shape[:2]
    area = int((stamp[..., 3] >= 128).sum())
    for _ in range(TRIES):
        top, left = (int(random.integers(-length // 4, SIZE - 3 * length // 4)) for length in (height, width))
        rows, columns = (slice(max(0, at), at + length) for at, length in ((top, height), (left, width)))
        part = stamp[rows.start - top : SIZE - top, columns.start - left : SIZE - left]
        here = np.zeros((SIZE, SIZE), bool)
        here[rows, columns] = part[..., 3] >= 128
        after = [*(one._replace(seen=one.seen & ~here) for one in objects), _Object(label, here, area)]
        if all(one.seen.sum() >= LEAST_SEEN * one.area for one in after):
            share = part[..., 3:] / 255
            pixels[rows, columns] = (share * part[..., :3] + (1 - share) * pixels[rows, columns]).round()
            return after
    return objects
