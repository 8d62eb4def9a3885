"""What may have been meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """At most so many of the known names that are spelled like this one, the nearest first."""
    return difflib.get_close_matches(name, list(known), n=most)


def meant(name: str, known: Iterable[str], *, most: int = 1, shown: Callable[[str], str] = repr) -> str:
    """`; did you mean 'bn-relu'?`, or nothing where no known name is near. shown: how a name is written."""
    near = nearest(name, known, most)
    return f"; did you mean {' or '.join(map(shown, near))}?" if near else ""
