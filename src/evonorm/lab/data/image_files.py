"""Images in a folder or a zip of {train,test}/<class>/<image>, read as data: nothing is unpacked to the disk."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from evonorm.lab.errors import UserError

SIZE = 32
SPLITS = ("train", "test")
LAYOUT = "{train,test}/<class>/<image>"
# Above these, a zip or an image is not a picture to train on but something that explodes.
MAX_FILE_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 16 * 2**30
MAX_RATIO = 200
MAX_PIXELS = 64 * 10**6
# Seed of the permutation that stands in for an official order.
ORDER_SEED = 2004_02967


@dataclass(frozen=True)
class Source:
    """Files by name: what a folder and a zip have in common. names: of files; folders: of directories, both posix."""

    where: Path
    names: tuple[str, ...]
    folders: tuple[str, ...]
    read: Callable[[str], bytes]
    content_hash: Callable[[], str]


def from_folder(path: Path) -> Source:
    """The files below a folder; symbolic links are followed only to files."""
    below = sorted(path.rglob("*"))
    names = tuple(str(item.relative_to(path).as_posix()) for item in below if item.is_file())
    folders = tuple(str(item.relative_to(path).as_posix()) for item in below if item.is_dir())

    def content_hash() -> str:
        digest = hashlib.sha256()
        for name in names:
            content = (path / name).read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    return Source(path, names, folders, lambda name: (path / name).read_bytes(), content_hash)


def from_zip(path: Path) -> Source:
    """The entries of a zip. Raises UserError naming the entry that is encrypted, escapes, or explodes."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is not a zip that can be read: {error}; is the download complete?") from error
    for entry in archive.infolist():
        _check_entry(path, entry)
    total = sum(entry.file_size for entry in archive.infolist())
    if total > MAX_TOTAL_BYTES:
        raise UserError(f"{path} unpacks to {total:,} bytes, above the limit of {MAX_TOTAL_BYTES:,}")

    def read(name: str) -> bytes:
        try:
            return archive.read(name)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError) as error:
            raise UserError(f"{path}: cannot read {name}: {error}; is the download complete?") from error
        except Exception as error:  # zlib.error and its like have no common ancestor
            raise UserError(f"{path}: cannot unpack {name}: {error}; is the download complete?") from error

    def content_hash() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    names = tuple(entry.filename for entry in archive.infolist() if not entry.is_dir())
    folders = tuple(entry.filename.rstrip("/") for entry in archive.infolist() if entry.is_dir())
    return Source(path, names, folders, read, content_hash)


def listing(source: Source) -> dict[str, dict[str, list[str]]]:
    """split -> class -> names of its images, classes and names sorted.

    The splits may lie below folders that wrap them. Hidden files and what desktops leave behind are passed over.
    Raises UserError naming the split or class that is missing or empty.
    """
    found: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    for folder in source.folders:
        parts = PurePosixPath(folder).parts
        if len(parts) >= 2 and parts[-2] in SPLITS and not _clutter(parts):
            found[parts[-2]].setdefault(parts[-1], [])
    for name in source.names:
        parts = PurePosixPath(name).parts
        if len(parts) >= 3 and parts[-3] in SPLITS and not _clutter(parts):
            found[parts[-3]].setdefault(parts[-2], []).append(name)
    for split in SPLITS:
        if not found[split]:
            raise UserError(f"{source.where} has no {split}/<class>/<image>; images must lie as {LAYOUT}")
    for split, other in (SPLITS, SPLITS[::-1]):
        for name, images in found[split].items():
            if not images:
                raise UserError(f"{source.where}: class {split}/{name} is empty; add images or remove the folder")
            if name not in found[other]:
                raise UserError(f"{source.where}: class {name} is in {split} but not in {other}")
    return {split: {name: sorted(images) for name, images in sorted(found[split].items())} for split in SPLITS}


def decode(
    source: Source,
    found: dict[str, dict[str, list[str]]],
    track: Callable[[list[str]], Iterator[str]],
    *,
    side: int = SIZE,
) -> tuple[dict[str, np.ndarray], int]:
    """train_images, train_labels, test_images, test_labels, and how many images were of another size and were resized.

    uint8 (N, side, side, 3) RGB; labels int64, places in the sorted classes. A listing comes sorted by class: a fixed
    permutation stands in for an official order, so that the first N are a sample of all classes.
    track: goes through names, showing progress.
    """
    arrays: dict[str, np.ndarray] = {}
    resized = 0
    ordered: dict[str, list[str]] = {}
    for split, classes in found.items():
        names = [name for images in classes.values() for name in images]
        labels = np.repeat(np.arange(len(classes)), [len(images) for images in classes.values()])
        order = np.random.default_rng(ORDER_SEED).permutation(len(names))
        ordered[split] = [names[index] for index in order]
        arrays[f"{split}_images"] = np.empty((len(names), side, side, 3), np.uint8)
        arrays[f"{split}_labels"] = labels[order].astype(np.int64)
    places = [(split, place) for split, names in ordered.items() for place in range(len(names))]
    everything = [name for names in ordered.values() for name in names]
    for (split, place), name in zip(places, track(everything), strict=True):
        arrays[f"{split}_images"][place], other_size = _picture(source, name, side)
        resized += other_size
    return arrays, resized


def _picture(source: Source, name: str, side: int) -> tuple[np.ndarray, bool]:
    content = source.read(name)
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(
                    f"{source.where}: {name} has {image.width} x {image.height} pixels, too many to be true"
                )
            resize = image.size != (side, side)
            picture = image.convert("RGB")
            if resize:
                picture = picture.resize((side, side), Image.Resampling.BILINEAR)
            return np.asarray(picture), resize
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise UserError(
            f"{source.where}: {name} is not an image that can be read: {error}; remove or replace it"
        ) from error


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    parts = PurePosixPath(name.replace("\\", "/"))
    drive = name[1:2] == ":"
    if parts.is_absolute() or ".." in parts.parts or drive:
        raise UserError(f"{path}: entry {name!r} points outside the zip; refused")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise UserError(f"{path}: entry {name!r} is a symbolic link; refused")
    if entry.flag_bits & 1:
        raise UserError(f"{path}: entry {name!r} is encrypted; unpack it and pass the folder")
    if entry.file_size > MAX_FILE_BYTES or entry.file_size > max(entry.compress_size, 5_000) * MAX_RATIO:
        raise UserError(f"{path}: entry {name!r} unpacks to {entry.file_size:,} bytes; no image needs that: refused")


def _clutter(parts: tuple[str, ...]) -> bool:
    return (
        "__MACOSX" in parts or any(part.startswith(".") for part in parts) or parts[-1] in ("Thumbs.db", "desktop.ini")
    )
