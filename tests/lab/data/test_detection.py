"""What --data means for detection: COCO's folders as they are, everything else pasted on photographs, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evonorm.lab.data import detection, pasted
from evonorm.lab.errors import UserError
from tests.lab.extras import needed

needed("pycocotools", "detection")


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pasted, "TRAIN_PICTURES", 5)
    monkeypatch.setattr(pasted, "VAL_PICTURES", 3)


def test_without_data_digits_are_pasted_once(tmp_path: Path) -> None:
    said: list[str] = []
    first = detection.load(None, cache_folder=tmp_path, say=said.append)
    again = detection.load("digits", cache_folder=tmp_path, say=said.append)
    assert first.name == again.name == "pasted-digits"
    assert first.fingerprint == again.fingerprint
    assert len(said) == 1
    assert "drawing 8 pictures" in said[0]
    assert (len(first.train), len(first.val)) == (5, 3)
    assert first.notice == "These are pictures of digits pasted on two photographs, drawn with seed 0."


def test_a_folder_of_pictures_by_class_is_pasted_and_one_of_cocos_is_read(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for place, name in enumerate(("cat", "dog")):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            pixels = np.full((32, 32, 3), 100 * place + 20, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / split / name / "one.png")
    drawn = detection.load(str(tmp_path / "pets"), cache_folder=tmp_path / "cache", say=lambda text: None)
    assert drawn.name == "pasted-pets"
    assert drawn.classes == ("cat", "dog")
    kept = next(path for path in (tmp_path / "cache").glob("pasted-*") if path.is_dir())
    read = detection.load(str(kept), cache_folder=tmp_path / "other")
    assert read.fingerprint == drawn.fingerprint
    assert not (tmp_path / "other").exists()


def test_data_that_is_none_is_told_with_both_kinds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no 'nothing'.*annotations/instances_"):
        detection.load("nothing", cache_folder=tmp_path)
