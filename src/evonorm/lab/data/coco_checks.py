"""What COCO's annotations must hold before they are used: each fault by its file and id, with the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evonorm.lab.errors import UserError

FIELDS = ("images", "annotations", "categories")


def check_images(file: Path, folder: Path, images: Sequence[Any]) -> list[tuple[str, int]]:
    """Name and size in bytes of each picture. Raises UserError for an entry or a picture that is not there."""
    _check_ids(file, "image", images)
    sizes = []
    for about in images:
        where = f"{file}: image id {about['id']}"
        for name in ("width", "height"):
            if not _whole(about.get(name)) or about[name] < 1:
                raise UserError(f"{where}: {name} must be a number of pixels: got {about.get(name)!r}; correct it")
        name = about.get("file_name")
        if not isinstance(name, str) or not name:
            raise UserError(f"{where}: file_name must name a picture: got {name!r}; correct it")
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{where}: file_name {name!r} points outside {folder}; refused")
        try:
            sizes.append((name, path.stat().st_size))
        except OSError:
            raise UserError(f"{where}: there is no {path}; add the picture, or remove the entry") from None
    return sizes


def check_annotations(file: Path, content: Mapping[str, Any]) -> None:
    """Raises UserError for a category or an annotation that cannot be used; a box without area can, it is left out."""
    _check_ids(file, "category", content["categories"])
    _check_ids(file, "annotation", content["annotations"])
    for one in content["categories"]:
        if not isinstance(one.get("name"), str):
            raise UserError(f"{file}: category id {one['id']}: name must be text: got {one.get('name')!r}; correct it")
    images = {about["id"]: about for about in content["images"]}
    categories = {one["id"] for one in content["categories"]}
    for one in content["annotations"]:
        where = f"{file}: annotation id {one['id']}"
        for name, known in (("image_id", images), ("category_id", categories)):
            if not _whole(one.get(name)) or one[name] not in known:
                what = "images" if name == "image_id" else "categories"
                raise UserError(
                    f"{where}: {name} {one.get(name)!r} is none of `{what}`; add it there, or remove the annotation"
                )
        about = images[one["image_id"]]
        _check_box(where, one.get("bbox"), about)
        _check_segmentation(where, one.get("segmentation"), about)


def _check_ids(file: Path, what: str, entries: Sequence[Any]) -> None:
    seen: set[int] = set()
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _whole(entry.get("id")):
            raise UserError(
                f"{file}: {what} {place + 1} of {len(entries)} has no id that is a whole number; give it one"
            )
        if entry["id"] in seen:
            raise UserError(f"{file}: {what} id {entry['id']} is there twice; give each its own")
        seen.add(entry["id"])


def _check_box(where: str, box: Any, about: Mapping[str, Any]) -> None:
    remedy = "must be [x, y, width, height] in pixels"
    if not isinstance(box, list) or len(box) != 4 or not all(_number(value) for value in box):
        raise UserError(f"{where}: bbox {remedy}: got {box!r}; correct it, or remove the annotation")
    x, y, width, height = box
    outside = x >= about["width"] or y >= about["height"] or x + width <= 0 or y + height <= 0
    if width < 0 or height < 0 or (outside and width > 0 and height > 0):
        raise UserError(
            f"{where}: bbox {remedy}: {box} is not in its picture of {about['width']} x {about['height']}; corners x0, "
            "y0, x1, y1 become x0, y0, x1 - x0, y1 - y0"
        )


def _check_segmentation(where: str, drawn: Any, about: Mapping[str, Any]) -> None:
    if isinstance(drawn, list):
        good = bool(drawn) and all(
            isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 and all(map(_number, polygon))
            for polygon in drawn
        )
        if not good:
            raise UserError(
                f"{where}: segmentation must be polygons [x, y, x, y, ...] of three points or more; correct it, or "
                "remove the annotation"
            )
        return
    if not isinstance(drawn, dict) or not isinstance(drawn.get("counts"), (list, str)):
        raise UserError(
            f"{where}: segmentation must be polygons or run lengths with size and counts: got {str(drawn)[:40]}; masks "
            "are learned from it: add it, or remove the annotation"
        )
    if drawn.get("size") != [about["height"], about["width"]]:
        raise UserError(
            f"{where}: the size of its run lengths must be [height, width] of its picture, "
            f"[{about['height']}, {about['width']}]: got {drawn.get('size')}; correct it"
        )
    counts, pixels = drawn["counts"], about["height"] * about["width"]
    if isinstance(counts, list) and not (all(_whole(one) and one >= 0 for one in counts) and sum(counts) == pixels):
        raise UserError(
            f"{where}: its run lengths must add up to the {pixels:,} pixels of its picture; correct them, or remove "
            "the annotation"
        )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
