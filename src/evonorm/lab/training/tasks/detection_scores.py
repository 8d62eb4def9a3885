"""How good detections are: COCO's average precisions of boxes and masks, by pycocotools, from COCO's own results.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", 2014; cocodataset.org, "Detection Evaluation".
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from evonorm.lab.data.coco import Split

# What COCO calls them, and we.
KINDS = {"bbox": "box", "segm": "mask"}
SURE = 0.5


def results(split: Split, place: int, found: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """What a detector found in a picture, in COCO's format of results; masks as run lengths, set from SURE up.

    found: boxes (n, 4) as x0 y0 x1 y1, labels (n,) from 1, scores (n,), masks (n, 1, H, W) in [0, 1].
    """
    from pycocotools import mask

    ids = [category["id"] for category in split.categories]
    listed = []
    masks = (found["masks"][:, 0] >= SURE).cpu().numpy().astype(np.uint8)
    for box, label, score, drawn in zip(
        found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), masks, strict=True
    ):
        runs = mask.encode(np.asfortranarray(drawn))
        listed.append(
            {
                "image_id": split.pictures[place]["id"],
                "category_id": ids[label - 1],
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "score": score,
                "segmentation": {"size": list(runs["size"]), "counts": runs["counts"].decode("ascii")},
            }
        )
    return listed


def scores(split: Split, found: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """box_ap, box_ap50, mask_ap and mask_ap50 in [0, 1] over all classes, and the same by class.

    AP is the mean over intersections over union from 0.50 to 0.95; AP50 that at 0.50; NaN where nothing is to be found.
    found: COCO's results of the split's pictures.
    """
    names = [str(category["name"]) for category in split.categories]
    overall: dict[str, float] = {}
    by_class: dict[str, dict[str, float]] = {name: {} for name in names}
    for kind, ours in KINDS.items():
        precision = _precision(split, found, kind)
        for name, wanted in ((f"{ours}_ap", slice(None)), (f"{ours}_ap50", slice(1))):
            overall[name] = _mean(precision[wanted])
            for place, one in enumerate(names):
                by_class[one][name] = _mean(precision[wanted, :, place])
    return overall, by_class


def _precision(split: Split, found: Sequence[Mapping[str, Any]], kind: str) -> np.ndarray:
    """By intersection over union, recall and class; -1 where a class has nothing to be found."""
    from pycocotools.cocoeval import COCOeval

    truth = split.truth()
    # Without its box pycocotools takes a mask's own.
    own = [{key: value for key, value in one.items() if kind == "bbox" or key != "bbox"} for one in found]
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(truth, truth.loadRes(own) if own else type(truth)(), kind)
        judge.params.imgIds = sorted(about["id"] for about in split.pictures)
        judge.evaluate()
        judge.accumulate()
    precision: np.ndarray = judge.eval["precision"][:, :, :, 0, -1]  # of objects of every size, among the best 100
    return precision


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else math.nan
