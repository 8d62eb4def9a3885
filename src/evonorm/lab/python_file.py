"""A user's own Python file: run as a module, and again from its text where it has travelled to."""

from __future__ import annotations

import itertools
import sys
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evonorm.lab.errors import UserError


@dataclass(frozen=True)
class Source:
    """A file's name, as the user gave it, and its text."""

    name: str
    text: str


_running: list[Source] = []
_number = itertools.count()


def running() -> Source | None:
    """The file that is being run."""
    return _running[-1] if _running else None


def read(name: str) -> Source:
    """Raises UserError if there is no such file."""
    try:
        return Source(name, Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None


def run(source: Source) -> types.ModuleType:
    """The module that the file makes. Raises UserError if it fails."""
    # By a name of its own: dataclasses and pickle look for classes there.
    module = types.ModuleType(f"evonorm_file_{next(_number)}_{Path(source.name).stem}")
    module.__dict__["__file__"] = source.name
    sys.modules[module.__name__] = module
    try:
        with _noted(source):
            exec(compile(source.text, source.name, "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[module.__name__]
        told = "".join(traceback.format_exception_only(error)).strip()
        raise UserError(f"{source.name} could not be run: {told}") from error
    return module


@contextmanager
def _noted(source: Source) -> Iterator[None]:
    _running.append(source)
    try:
        yield
    finally:
        _running.pop()
