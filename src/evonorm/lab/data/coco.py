"""Pictures with boxes, masks and classes in COCO's format: found, checked, and read one by one as a run asks for them.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", 2014; cocodataset.org, "Data format".
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evonorm.lab.data.coco_checks import FIELDS, check_annotations, check_images
from evonorm.lab.errors import UserError

SPLITS = ("train", "val")
LAYOUTS = (
    "{train,val}/images/ with {train,val}/annotations.json, or COCO's own {train2017,val2017}/ with "
    "annotations/instances_{train2017,val2017}.json"
)


@dataclass(frozen=True)
class Objects:
    """What is to be found in a picture; crowds, which no detector has to take apart, are not.

    boxes: float32 (n, 4), x0 y0 x1 y1 in pixels. labels: int64 (n,), places in the classes. masks: bool (n, H, W).
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class Split:
    """Pictures and what is annotated in each.

    file: the annotations. images: where the pictures lie. pictures: COCO's `images`; annotations: COCO's, by image id;
    categories: COCO's, by id; its place among the sorted ids is the class' label.
    """

    file: Path
    images: Path
    pictures: tuple[Mapping[str, Any], ...]
    annotations: Mapping[int, Sequence[Mapping[str, Any]]]
    categories: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def subset(self, count: int | None, seed: int) -> Split:
        """So many of the pictures, chosen by `seed`, in the given order; None, or no fewer than there are: all."""
        if count is None or count >= len(self):
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        return replace(self, pictures=tuple(self.pictures[place] for place in chosen))

    def first(self, count: int | None) -> Split:
        """The first so many of the pictures; None: all."""
        return replace(self, pictures=self.pictures[:count])

    def image(self, place: int) -> np.ndarray:
        """uint8 (H, W, 3) RGB. Raises UserError naming the file if it cannot be read or has another size."""
        about = self.pictures[place]
        path = self.images / about["file_name"]
        try:
            with Image.open(path) as image:
                pixels = np.array(image.convert("RGB"))
        except Exception as error:  # Pillow's decoders raise whatever they stumble over
            raise UserError(
                f"{path} is not an image that can be read: {error}; replace it, or take image id {about['id']} "
                f"out of {self.file}"
            ) from error
        if pixels.shape[:2] != (about["height"], about["width"]):
            raise UserError(
                f"{path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, but {self.file} gives image id "
                f"{about['id']} {about['width']} x {about['height']}; its boxes would not fit: correct either"
            )
        return pixels

    def objects(self, place: int) -> Objects:
        """Boxes cut to the picture, labels and masks. Raises UserError naming an annotation that cannot be decoded."""
        about = self.pictures[place]
        width, height = about["width"], about["height"]
        labels = {category["id"]: label for label, category in enumerate(self.categories)}
        found = [one for one in self.annotations.get(about["id"], ()) if not one.get("iscrowd")]
        boxes = np.array([one["bbox"] for one in found], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [self._mask(one, height, width) for one in found]
        return Objects(
            boxes.clip(0, np.array([width, height] * 2, np.float32)),
            np.array([labels[one["category_id"]] for one in found], np.int64),
            np.stack(masks) if masks else np.zeros((0, height, width), bool),
        )

    def truth(self) -> Any:
        """These pictures as a pycocotools COCO, crowds among them: what detections are held against."""
        from pycocotools.coco import COCO

        ids = {about["id"] for about in self.pictures}
        made = COCO()
        made.dataset = {
            "info": {},
            "images": list(self.pictures),
            "categories": list(self.categories),
            "annotations": [dict(one) for id in sorted(ids) for one in self.annotations.get(id, ())],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            made.createIndex()
        return made

    def _mask(self, annotation: Mapping[str, Any], height: int, width: int) -> np.ndarray:
        from pycocotools import mask

        given = annotation["segmentation"]
        try:
            if isinstance(given, list):
                runs = mask.merge(mask.frPyObjects(given, height, width))
            else:
                runs = mask.frPyObjects(given, height, width) if isinstance(given["counts"], list) else given
            with warnings.catch_warnings():
                # pycocotools 2.0.11 has not followed NumPy 2 in what it implements of arrays.
                warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
                drawn = mask.decode(runs)
            if int(drawn.sum()) != int(mask.area(runs)):  # it leaves what runs do not reach as the memory was
                raise ValueError("its run lengths end before its picture does")
            return np.asarray(drawn, bool)
        except Exception as error:  # the decoder, in C, raises what it stumbles over
            raise UserError(
                f"{self.file}: annotation id {annotation['id']}: segmentation cannot be decoded: {error}; mend it or "
                "remove the annotation"
            ) from error


@dataclass(frozen=True)
class DetectionDataset:
    """Pictures to find objects in; name, classes and notice as in sets.Dataset.

    fingerprint: 16 hex digits of the annotations and of the names and sizes of the pictures.
    """

    name: str
    fingerprint: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    notice: str = ""

    @property
    def train_count(self) -> int:
        """See sets.Dataset."""
        return len(self.train)

    @property
    def test_count(self) -> int:
        """See sets.Dataset."""
        return len(self.val)


def find(folder: Path) -> dict[str, tuple[Path, Path]] | None:
    """split -> annotations and folder of pictures, in either of LAYOUTS; None where `folder` is of neither.

    Raises UserError naming what is missing where one split is there, or several years are.
    """
    own = {split: (folder / split / "annotations.json", folder / split / "images") for split in SPLITS}
    official = {split: sorted(folder.glob(f"annotations/instances_{split}*.json")) for split in SPLITS}
    if not any(file.exists() for file, _ in own.values()):
        if not any(official.values()):
            return None
        for split, files in official.items():
            if len(files) != 1:
                names = ", ".join(file.name for file in files) or "none"
                raise UserError(
                    f"{folder / 'annotations'} must hold one instances_{split}*.json: got {names}; data for detection "
                    f"lies as {LAYOUTS}"
                )
        own = {
            split: (files[0], folder / files[0].stem.removeprefix("instances_")) for split, files in official.items()
        }
    for file, images in own.values():
        if not file.is_file():
            raise UserError(f"there is no {file}; data for detection lies as {LAYOUTS}")
        if not images.is_dir():
            raise UserError(f"there is no folder {images} for the pictures of {file.name}; data lies as {LAYOUTS}")
    return own


def read(folder: Path, *, name: str | None = None, notice: str = "") -> DetectionDataset:
    """The data in a folder of LAYOUTS; pictures without an object, and boxes without an area, are not trained on.

    Raises UserError naming file, annotation id and remedy for what cannot be used, and without pycocotools.
    """
    require()
    places = find(folder)
    if places is None:
        raise UserError(f"{folder} has no annotations of objects; data for detection lies as {LAYOUTS}")
    digest = hashlib.sha256()
    (train, dropped), (val, _) = (_split(*places[split], digest) for split in SPLITS)
    if train.categories != val.categories:
        raise UserError(
            f"{train.file} and {val.file} must have the same categories, ids and names alike; give both the same list"
        )
    shown = tuple(about for about in train.pictures if any(not one.get("iscrowd") for one in _of(train, about)))
    empty = len(train) - len(shown)
    if not shown:
        raise UserError(f"{train.file} annotates no object, so that there is nothing to learn; is it the right file?")
    notices = [
        notice,
        f"{empty:,} training pictures without objects are left out." if empty else "",
        f"{dropped:,} boxes without area in the training pictures are left out." if dropped else "",
    ]
    return DetectionDataset(
        name or folder.resolve().name,
        digest.hexdigest()[:16],
        tuple(str(category["name"]) for category in train.categories),
        replace(train, pictures=shown),
        val,
        " ".join(words for words in notices if words),
    )


def require() -> None:
    """Raises UserError with the remedy if pycocotools is not installed."""
    try:
        import pycocotools.coco  # noqa: F401
    except ImportError:
        raise UserError("detection reads and judges with pycocotools: pip install 'evonorm[detection]'") from None


def _of(split: Split, about: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return split.annotations.get(about["id"], ())


def _split(file: Path, images: Path, digest: Any) -> tuple[Split, int]:
    """A split, and how many boxes without area were left out; what it is made of goes into `digest`."""
    try:
        raw = file.read_bytes()
        content = json.loads(raw)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not JSON that can be read: {error}; is the download complete?") from error
    for name in FIELDS:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise UserError(f"{file} has no list `{name}`; COCO's files for instances hold {', '.join(FIELDS)}")
    sizes = check_images(file, images, content["images"])
    check_annotations(file, content)
    digest.update(hashlib.sha256(raw).digest() + json.dumps(sizes).encode())
    by_image: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    flat = 0
    for one in content["annotations"]:
        if min(one["bbox"][2:]) <= 0:
            flat += 1
        else:
            by_image[one["image_id"]].append(one)
    pictures = tuple(
        {name: about[name] for name in ("id", "file_name", "width", "height")} for about in content["images"]
    )
    categories = sorted(({"id": one["id"], "name": one["name"]} for one in content["categories"]), key=_id)
    return Split(file, images, pictures, dict(by_image), tuple(categories)), flat


def _id(entry: Mapping[str, Any]) -> int:
    return int(entry["id"])
