"""Values of a sweep file, checked; each raises UserError with the key's path `at`, the value and the remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from evonorm.lab.errors import UserError
from evonorm.spelling import meant


def text(top: Mapping[str, Any], key: str) -> str | None:
    """The text at a key, None where there is none; numbers count as text."""
    value = top.get(key)
    if value is None:
        return None
    if isinstance(value, Mapping | list | tuple):
        raise UserError(f"{key}: {shown(value)} must be text")
    return str(value)


def number(value: Any, at: str, notes: list[str]) -> float:
    """A finite number; one written as text, as YAML 1.1 reads 1e-5, is taken for it, with a note."""
    if isinstance(value, str):
        try:
            meant = float(value)
        except ValueError:
            raise UserError(f"{at}: {shown(value)} must be a number") from None
        if not math.isfinite(meant):
            raise UserError(f"{at}: {shown(value)} must be a finite number")
        notes.append(f"{at}: the text {shown(value)} is taken for the number {value}")
        return int(value) if re.fullmatch(r"[-+]?\d+", value) else meant
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{at}: {shown(value)} must be a finite number")
    return value


def integer(value: Any, at: str, notes: list[str], *, least: int) -> int:
    """As number, and a whole one of at least `least`."""
    found = number(value, at, notes)
    if found != int(found) or found < least:
        raise UserError(f"{at}: {shown(value)} must be an integer of at least {least}")
    return int(found)


def one_of(value: Any, names: Collection[str], at: str) -> Any:
    """The value, which is one of `names`."""
    if not isinstance(value, str) or value not in names:
        found = "missing" if value is None else f"{shown(value)} is not known{meant(str(value), names)}"
        raise UserError(f"{at}: {found}; choose from {', '.join(names)}")
    return value


def mapping(content: Any, at: str, example: str = "") -> Mapping[str, Any]:
    """The content, which is a mapping with text for keys. example: of one, for whoever wrote something else."""
    if not isinstance(content, Mapping):
        where = f"{at}: " if at else ""
        hint = f", as in `{example}`" if example else ""
        raise UserError(f"{where}{shown(content)} must be a mapping of names to values{hint}")
    for key in content:
        if not isinstance(key, str):
            raise UserError(f"{at + '.' if at else ''}{key}: a key must be text; put it in quotes")
    return content


def known(found: Mapping[str, Any], keys: Collection[str], at: str, *, also: Collection[str] = ()) -> None:
    """Refuses keys that are not among `keys`, or `also`, which is not named."""
    for key in found:
        if key not in keys and key not in also:
            where = f"{at}.{key}" if at else key
            raise UserError(f"{where}: unknown key{meant(key, keys)}; the keys are {', '.join(keys)}")


def shown(value: Any) -> str:
    """A value as an error shows it."""
    written = repr(value)
    return written if len(written) <= 80 else written[:77] + "..."
