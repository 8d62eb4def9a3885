"""The pictures of a zip coded as JPEG once more: what their first coding may have cost a network that learns them.

`python -m benchmarks.coded_again IMAGES.zip AGAIN.zip`. Each is coded with quality 75 and colour at half resolution, as
CIFAR-10's copies here were, on a grid of blocks that is shifted by half a block, else the second coding would find the
first one's numbers; kept as PNG under the same name, so that their order stays.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY, SUBSAMPLING, SHIFT = 75, 2, 4


def coded(pixels: np.ndarray) -> np.ndarray:
    """pixels: uint8 (H, W, 3); the same of them after the coding."""
    height, width, _ = pixels.shape
    framed = np.pad(pixels, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="reflect")
    file = io.BytesIO()
    Image.fromarray(framed).save(file, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING)
    return np.asarray(Image.open(file).convert("RGB"))[SHIFT : SHIFT + height, SHIFT : SHIFT + width]


def main(images: Path, again: Path) -> None:
    """Writes the second zip from the first, and prints by how many of 255 levels a pixel moved on average."""
    moved: list[float] = []
    with zipfile.ZipFile(images) as source, zipfile.ZipFile(again, "w", zipfile.ZIP_STORED) as kept:
        for name in source.namelist():
            if not name.lower().endswith((".jpg", ".jpeg", ".png")):
                continue
            pixels = np.asarray(Image.open(io.BytesIO(source.read(name))).convert("RGB"))
            found = coded(pixels)
            moved.append(float(np.abs(found.astype(int) - pixels).mean()))
            file = io.BytesIO()
            Image.fromarray(found).save(file, "PNG", compress_level=1)
            kept.writestr(f"{name.rpartition('.')[0]}.png", file.getvalue())
    print(f"{len(moved):,} pictures; moved by {np.mean(moved):.2f} levels of 255 on average")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
