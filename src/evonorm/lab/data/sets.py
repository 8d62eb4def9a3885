"""The images of an experiment: chosen by --data, decoded once, cached by content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from evonorm.lab.data import cifar10, image_files
from evonorm.lab.errors import UserError

# Counted up when decoding changes, so that an older cache is not taken for the new one.
DECODING = 1
DIGITS_TEST_IMAGES = 360
# Pictures of a folder or zip are brought to 32x32, or to what is said behind its name.
SIDES = range(16, 513)
ACCEPTED = (
    "`cifar10`, `digits`, a cifar-10-python.tar.gz or cifar-10-batches-py, or a folder or zip of "
    f"{image_files.LAYOUT}, as FOLDER@64 for pictures of 64x64 pixels"
)

Say = Callable[[str], None]


class Dataset(Protocol):
    """What every task's data tells of itself.

    name: never a path. fingerprint: 16 hex digits of the content. notice: what a reader of results must know.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def notice(self) -> str: ...  # noqa: D102
    @property
    def train_count(self) -> int:
        """How many images there are to train on."""

    @property
    def test_count(self) -> int:
        """How many images there are to validate on."""


@dataclass(frozen=True)
class ImageDataset:
    """Images in memory: uint8 (N, side, side, 3) RGB, labels int64 (N,), places in `classes`; rest as in Dataset."""

    name: str
    fingerprint: str
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    notice: str = ""

    @property
    def train_count(self) -> int:
        """See Dataset."""
        return len(self.train_labels)

    @property
    def test_count(self) -> int:
        """See Dataset."""
        return len(self.test_labels)


def load(source: str | None, *, cache_folder: Path | None = None, say: Say = print) -> ImageDataset:
    """The data that `source` names (see ACCEPTED); None: CIFAR-10 found or downloaded, else `digits` with a notice.

    Images are 32x32, or, of a folder or zip named as NAME@SIDE, of that side: those of other sizes are resized.
    Decoded images are kept in cache_folder, by default the user's cache (or $EVONORM_CACHE). Images of a folder or zip
    come in a fixed random order, those of CIFAR-10 in the official one. Raises UserError naming what is wrong.
    """
    cache = cache_folder or user_cache()
    if source == "digits":
        return _digits()
    if source in (None, "cifar10"):
        found = cifar10.find(cifar10.places(cache))
        try:
            return _cifar10(found or cifar10.download(cache, say), cache)
        except UserError as error:
            if source is not None or found is not None:
                raise
            return _digits(notice=f"These are scikit-learn's handwritten digits, not CIFAR-10: {error}")
    path, side = _named(source)
    if not path.exists():
        raise UserError(f"there is no {source!r}; --data takes {ACCEPTED}")
    batches = None
    if path.is_dir():
        batches = path if path.name == cifar10.FOLDER else cifar10.find([path])
        if batches is None:
            return _image_files(image_files.from_folder(path), side, cache, say)
    elif zipfile.is_zipfile(path) or path.suffix == ".zip":
        return _image_files(image_files.from_zip(path), side, cache, say)
    if side != image_files.SIZE:
        raise UserError(f"{source!r}: a side is of folders and zips of {image_files.LAYOUT}; leave out @{side}")
    if batches is not None:
        return _cifar10(batches, cache)
    if path.name.endswith((".tar.gz", ".tgz")) or tarfile.is_tarfile(path):
        return _cifar10(path, cache)
    raise UserError(f"{source!r} is neither a zip nor a tar archive; --data takes {ACCEPTED}")


def user_cache() -> Path:
    """Where what was decoded or drawn is kept: $EVONORM_CACHE, or the user's own cache."""
    import platformdirs  # not needed for data that lies in memory

    return Path(os.environ.get("EVONORM_CACHE") or platformdirs.user_cache_path("evonorm"))


def balanced_subset(labels: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """Places of `count` images, as evenly over the classes as they allow, chosen by `seed`, in the given order.

    count None, or no fewer than there are: all. Raises UserError if count is below the number of classes.
    """
    if count is None or count >= len(labels):
        return np.arange(len(labels))
    classes = np.unique(labels)
    if count < len(classes):
        raise UserError(f"a subset needs an image of each class: got {count} images for {len(classes)} classes")
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    # The k-th image of its class, in shuffled order: taking low ranks first takes the classes in turn.
    rank = np.empty(len(labels), np.int64)
    for label in classes:
        members = shuffled[labels[shuffled] == label]
        rank[members] = np.arange(len(members))
    in_turn = shuffled[np.argsort(rank[shuffled], kind="stable")]
    return np.sort(in_turn[:count])


def _cifar10(path: Path, cache: Path) -> ImageDataset:
    classes, arrays = cifar10.read(path, cache)
    return _dataset("cifar10", cifar10.ARCHIVE_MD5[:16], classes, arrays)


def _digits(notice: str = "") -> ImageDataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = (bunch.images * (255 / 16)).round().astype(np.uint8)
    size = (image_files.SIZE, image_files.SIZE)
    large = [Image.fromarray(image).resize(size, Image.Resampling.BILINEAR).convert("RGB") for image in grey]
    pictures, labels = np.stack([np.asarray(image) for image in large]), bunch.target.astype(np.int64)
    test = balanced_subset(labels, DIGITS_TEST_IMAGES, seed=0)
    # scikit-learn's come writer by writer.
    train = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(len(labels)), test))
    fingerprint = hashlib.sha256(pictures.tobytes() + labels.tobytes()).hexdigest()[:16]
    classes = tuple(str(digit) for digit in range(10))
    return ImageDataset(
        "digits", fingerprint, classes, pictures[train], labels[train], pictures[test], labels[test], notice
    )


def _named(source: str) -> tuple[Path, int]:
    """A path and the side of its pictures: NAME@SIDE, unless something of this very name is there."""
    name, at, said = source.rpartition("@")
    if not (at and said.isdecimal()) or Path(source).expanduser().exists():
        return Path(source).expanduser(), image_files.SIZE
    if int(said) not in SIDES:
        raise UserError(f"{source!r}: a side must be between {SIDES[0]} and {SIDES[-1]} pixels: got {said}")
    return Path(name).expanduser(), int(said)


def _image_files(source: image_files.Source, side: int, cache: Path, say: Say) -> ImageDataset:
    found = image_files.listing(source)
    # The usual side is older than others: its images keep their fingerprint.
    at = "" if side == image_files.SIZE else f"@{side}"
    fingerprint = hashlib.sha256(f"{DECODING}/{source.content_hash()}{at}".encode()).hexdigest()[:16]
    path = cache / f"images-{fingerprint}.npz"
    arrays = _cached(path, say)
    if arrays is None:
        arrays, resized = image_files.decode(
            source, found, lambda names: _tracked(names, source.where.name, say), side=side
        )
        arrays["resized"] = np.asarray(resized)
        _keep(path, arrays, say)
    resized = int(arrays.pop("resized"))
    notice = f"{resized:,} images were of other sizes and were resized to {side}x{side}." if resized else ""
    return _dataset(f"{source.where.name}{at}", fingerprint, tuple(found["train"]), arrays, notice)


def _dataset(
    name: str, fingerprint: str, classes: tuple[str, ...], arrays: dict[str, np.ndarray], notice: str = ""
) -> ImageDataset:
    return ImageDataset(
        name,
        fingerprint,
        classes,
        train_images=arrays["train_images"],
        train_labels=arrays["train_labels"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
        notice=notice,
    )


def _tracked(names: list[str], where: str, say: Say) -> Iterator[str]:
    console = Console(stderr=True)
    if not console.is_terminal:
        say(f"decoding {len(names):,} images of {where}")
    yield from track(names, f"decoding {where}", console=console, disable=not console.is_terminal, transient=True)


def _cached(path: Path, say: Say) -> dict[str, np.ndarray] | None:
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception as error:  # a torn file fails in as many ways as it can be torn
        say(f"the cache {path} is broken ({error}); decoding again")
        path.unlink(missing_ok=True)
        return None


def _keep(path: Path, arrays: dict[str, np.ndarray], say: Say) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        say(f"cannot cache decoded images in {path.parent}: {error.strerror}; going on without (set EVONORM_CACHE)")
