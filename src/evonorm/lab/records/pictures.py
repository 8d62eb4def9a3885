"""Pictures that a run makes of its work: PNG files in its folder's `pictures/`, each with its caption inside it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from evonorm.lab.records import run_files

FOLDER = "pictures"
# Where PNG has a file's description.
_CAPTION = "Description"


@dataclass(frozen=True)
class Picture:
    """A picture of a run. kind: what it shows, in a word; epoch: after how many; size: width and height in pixels."""

    path: Path
    kind: str
    epoch: int
    caption: str
    size: tuple[int, int]


def write(folder: Path, kind: str, epoch: int, pixels: np.ndarray, caption: str) -> Path:
    """Writes a picture into the run's `folder`, at once, in the place of that of the same kind and epoch.

    pixels: uint8 (H, W, 3). caption: what it shows, in a sentence.
    """
    path = folder / FOLDER / f"{kind}-{epoch:04d}.png"
    path.parent.mkdir(exist_ok=True)
    inside = PngImagePlugin.PngInfo()
    inside.add_itxt(_CAPTION, caption)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", pnginfo=inside)
    run_files.write_atomically(path, content.getvalue())
    return path


def of_run(folder: Path) -> Iterator[Picture]:
    """The pictures of a run, by kind and epoch; what else lies among them is passed over."""
    for path in sorted((folder / FOLDER).glob("*.png")):
        kind, _, number = path.stem.rpartition("-")
        if kind and number.isdecimal():
            try:
                with Image.open(path) as picture:
                    picture.load()
                    yield Picture(path, kind, int(number), str(picture.info.get(_CAPTION, "")), picture.size)
            except OSError:
                continue
