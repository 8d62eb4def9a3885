"""COCO's format: both layouts are read alike, and each fault is told with its file, its id and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evonorm.lab.data import coco
from evonorm.lab.errors import UserError
from tests.lab.extras import needed

runs = needed("pycocotools.mask", "detection")
WIDTH, HEIGHT = 40, 30
Content = dict[str, Any]


def content() -> Content:
    """Two pictures; in the first a triangle, a rectangle as runs and a crowd, in the second nothing."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    drawn[5:15, 20:30] = 1
    encoded = runs.encode(drawn)
    images = [
        {"id": 7, "file_name": "b.png", "width": WIDTH, "height": HEIGHT, "license": 1},
        {"id": 3, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
    ]
    common = {"image_id": 7, "iscrowd": 0}
    annotations = [
        {**common, "id": 11, "category_id": 90, "bbox": [2, 3, 8, 10.5], "segmentation": [[2, 3, 10, 3, 2, 13.5]]},
        {
            **common,
            **{"id": 12, "category_id": 4, "bbox": [20, 5, 10, 10]},
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()},
        },
        {
            **common,
            **{"id": 13, "category_id": 4, "bbox": [0, 0, 5, 5], "iscrowd": 1},
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 5, HEIGHT * WIDTH - 5]},
        },
    ]
    for one in annotations:
        one["area"] = 40.0
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 4, "name": "aeroplane"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def written(folder: Path, change: Callable[[Content], None] = lambda content: None, *, official: bool = False) -> Path:
    for split in ("train", "val"):
        images = folder / (f"{split}2017" if official else f"{split}/images")
        images.mkdir(parents=True)
        for place, name in enumerate(("a.png", "b.png")):
            Image.new("RGB", (WIDTH, HEIGHT), (100 * place, 10, 20)).save(images / name)
        made = content()
        if split == "train":
            change(made)
        file = folder / (f"annotations/instances_{split}2017.json" if official else f"{split}/annotations.json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(made))
    return folder


@pytest.mark.parametrize("official", [False, True])
def test_both_layouts_are_read_alike(tmp_path: Path, official: bool) -> None:
    found = coco.read(written(tmp_path / "set", official=official))
    assert found.name == "set"
    assert found.classes == ("aeroplane", "toothbrush")  # by category id, as pycocotools sorts them
    assert (len(found.train), len(found.val)) == (1, 2)
    assert "1 training pictures without objects" in found.notice
    assert found.train.image(0)[0, 0].tolist() == [100, 10, 20]
    objects = found.train.objects(0)
    assert objects.labels.tolist() == [1, 0]
    np.testing.assert_allclose(objects.boxes, [[2, 3, 10, 13.5], [20, 5, 30, 15]])
    assert objects.masks.shape == (2, HEIGHT, WIDTH)
    assert objects.masks[1].sum() == 100
    assert objects.masks[1, 5:15, 20:30].all()
    assert 30 < objects.masks[0].sum() < 55  # half of 8 x 10.5
    assert found.val.objects(1).masks.shape == (0, HEIGHT, WIDTH)


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    first, same = (coco.read(written(tmp_path / name)).fingerprint for name in ("one", "two"))
    assert first == same
    other = coco.read(written(tmp_path / "three", lambda made: made["annotations"][0].update(bbox=[2, 3, 8, 11])))
    assert other.fingerprint != first


def test_crowds_are_judged_by_but_not_trained_on(tmp_path: Path) -> None:
    found = coco.read(written(tmp_path / "set"))
    assert [one["id"] for one in found.val.truth().loadAnns(found.val.truth().getAnnIds(iscrowd=True))] == [13]


def test_a_box_without_area_is_left_out_and_told(tmp_path: Path) -> None:
    found = coco.read(written(tmp_path / "set", lambda made: made["annotations"][1].update(bbox=[20, 5, 0, 10])))
    assert found.train.objects(0).labels.tolist() == [1]
    assert "1 boxes without area" in found.notice


def test_a_subset_is_drawn_by_its_seed(tmp_path: Path) -> None:
    split = coco.read(written(tmp_path / "set")).val
    chosen = {seed: split.subset(1, seed).pictures[0]["id"] for seed in range(8)}
    assert set(chosen.values()) == {3, 7}
    assert split.subset(1, 0).pictures == split.subset(1, 0).pictures
    assert split.subset(None, 0) is split


def set_first(name: str, value: Any) -> Callable[[Content], None]:
    return lambda made: made["annotations"][0].update({name: value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_first("image_id", 99), "annotation id 11: image_id 99 is none of `images`; add it there, or remove"),
        (set_first("category_id", 5), "annotation id 11: category_id 5 is none of `categories`"),
        (set_first("bbox", [2, 3, 8]), r"annotation id 11: bbox must be \[x, y, width, height\]"),
        (set_first("bbox", [30, 20, -10, 5]), "annotation id 11: bbox .* is not in its picture of 40 x 30; corners"),
        (set_first("bbox", [50, 20, 10, 5]), "annotation id 11: bbox .* is not in its picture"),
        (set_first("bbox", [2, float("nan"), 8, 9]), "annotation id 11: bbox must be"),
        (set_first("segmentation", None), "annotation id 11: segmentation must be polygons or run lengths"),
        (set_first("segmentation", [[1, 2, 3, 4]]), "annotation id 11: segmentation must be polygons"),
        (set_first("segmentation", {"size": [40, 30], "counts": [1200]}), r"annotation id 11: .*\[30, 40\]: got"),
        (set_first("segmentation", {"size": [30, 40], "counts": [10, 5]}), "annotation id 11: .* add up to the 1,200"),
        (set_first("id", 12), "annotation id 12 is there twice"),
        (lambda made: made["images"][0].update(file_name="c.png"), "image id 7: there is no .*c.png; add the picture"),
        (lambda made: made["images"][0].update(file_name="../c.png"), "image id 7: .* points outside"),
        (lambda made: made["images"][0].update(width="40"), "image id 7: width must be a number of pixels: got '40'"),
        (lambda made: made["images"][0].pop("id"), "image 1 of 2 has no id"),
        (lambda made: made.pop("categories"), "has no list `categories`"),
        (lambda made: made["categories"].pop(), "category_id 4 is none of `categories`"),
        (lambda made: made["categories"].append({"id": 1, "name": "cat"}), "must have the same categories"),
        (lambda made: made["annotations"].clear(), "annotates no object"),
    ],
)
def test_a_fault_is_told_by_file_id_and_remedy(tmp_path: Path, change: Callable[[Content], None], words: str) -> None:
    folder = written(tmp_path / "set", change)
    with pytest.raises(UserError, match=words) as told:
        coco.read(folder)
    assert "annotations.json" in str(told.value)


def test_faults_of_a_picture_are_told_when_it_is_read(tmp_path: Path) -> None:
    found = coco.read(written(tmp_path / "set"))
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(tmp_path / "set/train/images/b.png")
    with pytest.raises(UserError, match=r"b.png is 41 x 30 pixels, but .*annotations.json gives image id 7 40 x 30"):
        found.train.image(0)
    (tmp_path / "set/val/images/b.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"b.png is not an image that can be read: .* image id 7"):
        found.val.image(0)


def test_runs_that_cannot_be_decoded_are_told(tmp_path: Path) -> None:
    damaged = {"size": [HEIGHT, WIDTH], "counts": "zzzz"}
    found = coco.read(written(tmp_path / "set", set_first("segmentation", damaged)))
    with pytest.raises(UserError, match="annotation id 11: segmentation cannot be decoded"):
        found.train.objects(0)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    assert coco.find(tmp_path) is None
    with pytest.raises(UserError, match="has no annotations of objects; data for detection lies as"):
        coco.read(tmp_path)
    folder = written(tmp_path / "set", official=True)
    (folder / "annotations/instances_train2014.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"one instances_train\*.json: got instances_train2014.json, instances_train2017"
    ):
        coco.read(folder)
    half = written(tmp_path / "half")
    (half / "val/annotations.json").unlink()
    with pytest.raises(UserError, match=r"there is no .*val/annotations.json"):
        coco.read(half)
    (half / "train/annotations.json").write_text("{")
    (half / "val/annotations.json").write_text("{}")
    with pytest.raises(UserError, match=r"train/annotations.json is not JSON"):
        coco.read(half)
