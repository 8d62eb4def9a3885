"""The pictures of a detection run: chosen by --data, a folder in COCO's format or a set that is drawn once and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from evonorm.lab.data import coco, pasted, sets
from evonorm.lab.data.coco import DetectionDataset
from evonorm.lab.errors import UserError

DEFAULT = "digits"


def load(
    source: str | None, *, cache_folder: Path | None = None, say: Callable[[str], None] = print
) -> DetectionDataset:
    """A folder in COCO's format (see coco.LAYOUTS), or the pictures that `source` names pasted on photographs.

    source: of the second kind, whatever sets.load takes; None: `digits`. What is drawn is kept in cache_folder, by
    default the user's cache (or $EVONORM_CACHE). Raises UserError naming what is wrong.
    """
    coco.require()
    if source is not None and (folder := Path(source).expanduser()).is_dir() and coco.find(folder) is not None:
        return coco.read(folder)
    try:
        pictures = sets.load(source or DEFAULT, cache_folder=cache_folder, say=say)
    except UserError as error:
        raise UserError(f"{error}; for detection, also a folder of {coco.LAYOUTS}") from error
    pasting = pasted.Pasting(pictures, 0, pasted.TRAIN_PICTURES, pasted.VAL_PICTURES)
    folder = (cache_folder or sets.user_cache()) / f"pasted-{pictures.name}-{pasting.key}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                say(f"drawing {pasting.train_pictures + pasting.val_pictures:,} pictures into {folder}")
                pasted.write(pasting, folder)
    except OSError as error:
        raise UserError(f"cannot keep pictures in {folder.parent}: {error.strerror}; set EVONORM_CACHE") from error
    return coco.read(folder, name=f"pasted-{pictures.name}", notice=pasting.notice)
