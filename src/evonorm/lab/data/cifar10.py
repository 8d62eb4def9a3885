"""CIFAR-10 in its official form: found where a user has it, or downloaded; unpickled only after its checksums agree.

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from evonorm.lab.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
FOLDER = "cifar-10-batches-py"
TIMEOUT_SECONDS = 20.0


def places(cache: Path) -> list[Path]:
    """Folders in which users and tools keep CIFAR-10, ours first."""
    home = Path.home()
    return [cache / "cifar10", Path("data"), home / "data", home / ".cache" / "torch" / "data", home / "datasets"]


def find(folders: list[Path]) -> Path | None:
    """The extracted folder or the archive in the first of these folders that has one."""
    for folder in folders:
        for path in (folder / FOLDER, folder / ARCHIVE):
            if path.exists():
                return path
    return None


def download(cache: Path, say: Callable[[str], None]) -> Path:
    """Fetches the archive into the cache, with progress; one that breaks off leaves nothing behind.

    Raises UserError naming the address and what went wrong.
    """
    import pooch

    say(f"downloading CIFAR-10 (163 MiB) from {URL}")
    fetch = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT_SECONDS)
    folder = cache / "cifar10"
    try:
        path = pooch.retrieve(URL, known_hash=f"md5:{ARCHIVE_MD5}", fname=ARCHIVE, path=folder, downloader=fetch)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot download CIFAR-10 from {URL}: {reason}; repeat the command, or fetch {ARCHIVE} yourself and pass "
            "its path with --data"
        ) from error
    return Path(path)


def read(path: Path, cache: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Classes, and train_images, train_labels, test_images, test_labels in the official order.

    path: the archive, or the extracted folder. Raises UserError if a checksum does not agree.
    """
    from torchvision.datasets import CIFAR10

    folder = path if path.is_dir() else _extracted(path, cache)
    try:
        parts = {"train": CIFAR10(folder.parent, train=True), "test": CIFAR10(folder.parent, train=False)}
    except RuntimeError as error:
        raise UserError(
            f"{folder} is incomplete or damaged: a file's checksum is not that of CIFAR-10; delete it and run again"
        ) from error
    arrays: dict[str, np.ndarray] = {}
    for split, part in parts.items():
        arrays[f"{split}_images"] = np.ascontiguousarray(part.data)
        arrays[f"{split}_labels"] = np.asarray(part.targets, np.int64)
    return tuple(parts["train"].classes), arrays


def _extracted(archive: Path, cache: Path) -> Path:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    if digest != ARCHIVE_MD5:
        raise UserError(
            f"{archive} is not the official CIFAR-10 archive or is incomplete: md5 {digest}, expected {ARCHIVE_MD5}; "
            "delete it and download it again"
        )
    target = cache / "cifar10" / FOLDER
    if not target.exists():
        # Unpacked beside its place and moved there whole, so that a crash leaves no half of it.
        beside = target.with_name(FOLDER + ".part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            with tarfile.open(archive) as content:
                content.extractall(beside, filter="data")
        except (tarfile.TarError, EOFError) as error:
            raise UserError(f"cannot unpack {archive}: {error}; delete it and download it again") from error
        (beside / FOLDER).replace(target)
        shutil.rmtree(beside)
    return target
