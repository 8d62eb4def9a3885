"""Average precision by pycocotools from COCO's results, held to what follows from its definition by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from evonorm.lab.data.coco import Split
from evonorm.lab.training.tasks.detection_pictures import SIDE, grid
from evonorm.lab.training.tasks.detection_scores import results, scores
from tests.lab.extras import needed

needed("pycocotools", "detection")
ROOM = 48


def square(x: int, y: int, width: int = 10, height: int = 10) -> Tensor:
    mask = torch.zeros(ROOM, ROOM)
    mask[y : y + height, x : x + width] = 1
    return mask


def split(folder: Path) -> Split:
    """Two pictures with a cat of 10 x 10 each, in the second a dog too; birds are nowhere. Ids are not places."""
    annotations: dict[int, list[dict[str, object]]] = {5: [], 9: []}
    for id, (picture, category, x) in enumerate(((5, 2, 0), (9, 2, 0), (9, 6, 20))):
        corners = [x, 0, x + 10, 0, x + 10, 10, x, 10]
        annotations[picture].append(
            {"id": id + 1, "image_id": picture, "category_id": category, "bbox": [x, 0, 10, 10], "iscrowd": 0}
            | {"area": 100, "segmentation": [corners]}
        )
    pictures = tuple({"id": id, "file_name": f"{id}.png", "width": ROOM, "height": ROOM} for id in (9, 5))
    for about in pictures:
        Image.new("RGB", (ROOM, ROOM), (0, 0, 0)).save(folder / str(about["file_name"]))
    categories = ({"id": 2, "name": "cat"}, {"id": 6, "name": "dog"}, {"id": 8, "name": "bird"})
    return Split(folder / "annotations.json", folder, pictures, annotations, categories)


def found(*ones: tuple[int, float, Tensor]) -> dict[str, Tensor]:
    """Detections: label from 1, score, mask; boxes around the masks."""
    from torchvision.ops import masks_to_boxes

    masks = torch.stack([mask for *_, mask in ones]) if ones else torch.zeros(0, ROOM, ROOM)
    boxes = masks_to_boxes(masks)
    boxes[:, 2:] += len(ones) > 0
    return {
        "boxes": boxes,
        "labels": torch.tensor([label for label, *_ in ones], dtype=torch.int64),
        "scores": torch.tensor([score for _, score, _ in ones]),
        "masks": masks[:, None],
    }


CAT, DOG = 1, 2


def test_all_found_is_one_and_nothing_is_zero(tmp_path: Path) -> None:
    data = split(tmp_path)
    first = results(data, 0, found((CAT, 0.9, square(0, 0)), (DOG, 0.8, square(20, 0))))
    assert [one["image_id"] for one in first] == [9, 9]
    assert [one["category_id"] for one in first] == [2, 6]
    assert first[0]["bbox"] == [0, 0, 10, 10]
    whole, by_class = scores(data, [*first, *results(data, 1, found((CAT, 0.9, square(0, 0))))])
    assert whole == pytest.approx({"box_ap": 1, "box_ap50": 1, "mask_ap": 1, "mask_ap50": 1})
    assert by_class["dog"] == pytest.approx(whole)
    assert all(math.isnan(value) for value in by_class["bird"].values())
    assert set(scores(data, results(data, 0, found()))[0].values()) == {0}


def test_average_precision_is_that_of_its_definition(tmp_path: Path) -> None:
    """One of two cats: precision 1 up to recall 0.5, 51 of 101 points. The dog's mask is 10 x 10 of 10 x 14: 0.714."""
    data = split(tmp_path)
    listed = results(data, 0, found((CAT, 0.9, square(0, 0)), (DOG, 0.8, square(20, 0, height=14))))
    whole, by_class = scores(data, listed)
    assert by_class["cat"]["mask_ap50"] == pytest.approx(51 / 101)
    assert by_class["cat"]["box_ap"] == pytest.approx(51 / 101)
    # Right at 0.50, 0.55, 0.60, 0.65 and 0.70, wrong at the five above.
    assert by_class["dog"]["mask_ap"] == pytest.approx(0.5)
    assert by_class["dog"]["box_ap50"] == pytest.approx(1)
    assert whole["mask_ap"] == pytest.approx((51 / 101 + 0.5) / 2)


def test_boxes_and_masks_are_judged_apart(tmp_path: Path) -> None:
    """A mask that is a frame: its box is right, its mask covers little."""
    data = split(tmp_path)
    frame = square(20, 0) - square(22, 2, 6, 6)
    _, by_class = scores(data, results(data, 0, found((DOG, 0.9, frame), (DOG, 0.1, square(0, 20)))))
    assert by_class["dog"]["box_ap"] == pytest.approx(1)
    assert by_class["dog"]["mask_ap50"] == pytest.approx(1)  # 64 of 100 pixels
    assert by_class["dog"]["mask_ap"] == pytest.approx(0.3)  # right at 0.50, 0.55 and 0.60


def test_the_grid_shows_the_truth_left_and_what_was_found_right(tmp_path: Path) -> None:
    data = split(tmp_path)
    detections = {0: found((CAT, 0.9, square(0, 30)), (DOG, 0.2, square(20, 20))), 1: found()}
    pixels = grid(data, detections)
    edge, scale = SIDE + 2, SIDE // ROOM

    def cell(number: int) -> np.ndarray:
        return pixels[2 : 2 + SIDE, 2 + number * edge : 2 + number * edge + SIDE]

    assert cell(0)[5 * scale, 5 * scale].any()  # the cat in its place
    assert cell(0)[5 * scale, 25 * scale].any()  # the dog
    assert not cell(1)[5 * scale, 5 * scale].any()
    assert cell(1)[35 * scale, 5 * scale].any()  # the cat where it was found
    assert not cell(1)[25 * scale, 25 * scale].any()  # too unsure to be drawn
    assert cell(2)[5 * scale, 5 * scale].any()
    assert not cell(3).any()
