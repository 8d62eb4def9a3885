"""What a run's files must hold to be read: what is there must be of its kind; what is missing is another's affair."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from evonorm.lab.training import tasks
from evonorm.lab.training.config import Seeds, TrainConfig

STATUSES = ("running", "finished", "diverged", "stopped", "failed")

Check = Callable[[Any], str | None]


def _kind(words: str, holds: Callable[[Any], bool]) -> Check:
    return lambda value: None if holds(value) else words


def _numeric(value: Any, kinds: Any = (int, float)) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_TEXT = _kind("a text", lambda value: isinstance(value, str))
_NUMBER = _kind("a number", _numeric)
_SWITCH = _kind("true or false", lambda value: isinstance(value, bool))
_WHOLE = _kind("a whole number", lambda value: _numeric(value, int))
_COUNT = _kind("a whole number from 0 on", lambda value: _numeric(value, int) and value >= 0)
_STATUS = _kind(f"one of {', '.join(STATUSES)}", lambda value: isinstance(value, str) and value in STATUSES)
_TEXTS = _kind("a list of texts", lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value))


def _object(**fields: Check) -> Check:
    """A JSON object; a field that is missing or null is left be."""

    def check(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return "an object"
        return wrong(value, fields)

    return check


def _list_of(check: Check) -> Check:
    def checked(value: Any) -> str | None:
        if not isinstance(value, list):
            return "a list"
        return next((f"a list in which each is {words}" for one in value if (words := check(one))), None)

    return checked


def wrong(content: Mapping[str, Any], fields: Mapping[str, Check]) -> str | None:
    """The first field that is not of its kind, in words; None where all are. Null is of every kind."""
    for name, check in fields.items():
        value = content.get(name)
        if value is not None and (words := check(value)) is not None:
            return words if words.startswith('"') else f'"{name}" must be {words}, got {_shown(value)}'
    return None


def kind_of(hint: Any) -> type:
    """int, float, bool or str of a field's annotation, which may be a Literal or say `| None`."""
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    (kind,) = (choice for choice in choices if choice is not type(None))
    return kind if kind in (int, float, bool) else str


def _of_fields(owner: type, leave_out: tuple[str, ...] = ()) -> dict[str, Check]:
    checks = {int: _WHOLE, float: _NUMBER, bool: _SWITCH, str: _TEXT}
    return {n: checks[kind_of(hint)] for n, hint in typing.get_type_hints(owner).items() if n not in leave_out}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def wrong_epoch(epoch: Mapping[str, Any]) -> str | None:
    """As `wrong` has it, of an epoch of any task: its metrics are numbers, null where one was not finite."""
    splits = tuple(f"{split}_" for split in tasks.SPLITS)
    figures = [name for name in epoch if name in tasks.PACE or name.startswith(splits)]
    return wrong(epoch, {"epoch": _COUNT, **dict.fromkeys(figures, _NUMBER)})


def _epoch(value: Any) -> str | None:
    return wrong_epoch(value) if isinstance(value, Mapping) else "an object"


CONFIG: dict[str, Check] = {
    "config": _object(
        **_of_fields(TrainConfig, leave_out=("seeds", "options")), seeds=_object(**_of_fields(Seeds)), options=_object()
    ),
    "dataset": _object(
        name=_TEXT, fingerprint=_TEXT, notice=_TEXT, classes=_TEXTS, train_images=_COUNT, test_images=_COUNT
    ),
}
SUMMARY: dict[str, Check] = {
    "status": _STATUS,
    **dict.fromkeys(("epochs_done", "parameters"), _COUNT),
    **dict.fromkeys(("best", "last"), _epoch),
    "diagnosis": _object(
        epoch=_COUNT, step=_COUNT, kind=_TEXT, cause=_TEXT, magnitudes=_list_of(_object(module=_TEXT, largest=_NUMBER))
    ),
    "error": _TEXT,
    "groups_in_force": _object(),
    "seconds": _NUMBER,
}
ENVIRONMENT: dict[str, Check] = {"sessions": _list_of(_object())}
