"""Pictures that a run made: kept with their captions, shown on its page, the last in it and the earlier ones linked."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from evonorm.lab.pages import page
from evonorm.lab.records import pictures
from tests.lab.pages.test_report import HOSTILE
from tests.lab.pages.test_runs_page import several


def drawn(value: int) -> np.ndarray:
    return np.full((4, 6, 3), value, np.uint8)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = several(tmp_path)
    for epoch in (1, 2, 10):
        pictures.write(folder / "a", "detections", epoch, drawn(epoch), f"Left {HOSTILE}, right what was found: é")
    pictures.write(folder / "c", "samples", 3, drawn(99), "Samples")
    return folder


def test_a_picture_is_kept_with_its_caption(runs: Path) -> None:
    found = list(pictures.of_run(runs / "a"))
    assert [(one.kind, one.epoch, one.size) for one in found] == [("detections", epoch, (6, 4)) for epoch in (1, 2, 10)]
    assert found[0].caption == f"Left {HOSTILE}, right what was found: é"
    assert not list((runs / "a" / "pictures").glob("*.part"))
    pictures.write(runs / "a", "detections", 2, drawn(50), "again")
    assert [one.caption for one in pictures.of_run(runs / "a")][1] == "again"


def test_what_is_no_picture_is_passed_over(runs: Path) -> None:
    (runs / "a/pictures/detections-0011.png").write_bytes(b"torn")
    (runs / "a/pictures/notes.png").write_bytes(b"")
    assert [one.epoch for one in pictures.of_run(runs / "a")] == [1, 2, 10]
    assert not list(pictures.of_run(runs / "b"))


def test_the_page_holds_the_last_picture_and_links_the_earlier_ones(runs: Path) -> None:
    html = page.render(runs)
    images = re.findall(r'<img src="data:image/png;base64,([^"]*)" width="6" height="4"', html)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in images]
    assert sorted(int(pixels[0, 0, 0]) for pixels in shown) == [10, 99]
    assert HOSTILE not in html
    links = [unquote(one) for one in re.findall(r'href="(\./a/pictures/[^"]*)"', html)]
    assert links == ["./a/pictures/detections-0001.png", "./a/pictures/detections-0002.png"]
    assert all((runs / one).is_file() for one in links)
    assert html.count("after epoch") == 2


def test_a_runs_own_page_links_from_where_it_lies(runs: Path) -> None:
    page.write(runs / "a", runs / "pages" / "a.html")
    html = (runs / "pages" / "a.html").read_text()
    assert re.findall(r'href="(\.[^"]*0001.png)"', html) == ["./../a/pictures/detections-0001.png"]
