"""The `parameters` of a sweep file: their names, nested or not, and the distributions that they are drawn from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evonorm.lab.errors import UserError
from evonorm.lab.sweep import checked, macros
from evonorm.lab.sweep.distributions import KINDS, Distribution

_EXPONENTS = {
    "log_uniform": lambda found: f"{math.exp(found['min']):.4g} and {math.exp(found['max']):.4g}",
    "q_log_uniform": lambda found: f"{math.exp(found['min']):.4g} and {math.exp(found['max']):.4g}",
    "inv_log_uniform": lambda found: f"{math.exp(-found['max']):.4g} and {math.exp(-found['min']):.4g}",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Parameter:
    """One parameter: the keys that lead to it, more than one where it is nested, and where its values come from."""

    path: tuple[str, ...]
    distribution: Distribution

    @property
    def name(self) -> str:
        """Its keys joined by dots."""
        return ".".join(self.path)

    @property
    def place(self) -> str:
        """Where it stands in the file."""
        return "parameters." + ".parameters.".join(self.path)


def read_parameters(content: Any, above: tuple[str, ...], notes: list[str]) -> Iterable[Parameter]:
    """Those of the mapping `content`, in W&B's order, by name; above: the keys that lead there. notes: gets remarks."""
    at = "parameters" + "".join(f".{key}.parameters" for key in above)
    found = checked.mapping(content, at, f"{at.rpartition('.')[2]}: {{lr: {{min: 0.001, max: 0.1}}}}")
    if not found:
        raise UserError(f"{at}: empty; name at least one parameter")
    for key in sorted(found):
        path, here = (*above, key), f"{at}.{key}"
        if not _NAME.fullmatch(key):
            notes.append(f"{here}: an unusual name, given to the program as it is: {macros.arguments({key: '...'})[0]}")
        if not isinstance(found[key], Mapping):
            as_written = "values" if isinstance(found[key], list) else "value"
            raise UserError(
                f"{here}: {checked.shown(found[key])} must be a mapping, as in `{key}: {{{as_written}: ...}}`"
            )
        inner = checked.mapping(found[key], here)
        if "parameters" in inner:
            if len(inner) > 1:
                other = next(name for name in inner if name != "parameters")
                raise UserError(f"{here}.{other}: cannot stand beside `parameters`; a nested group has no value itself")
            yield from read_parameters(inner["parameters"], path, notes)
        else:
            yield Parameter(path, _distribution(inner, here, notes))


def _distribution(found: Mapping[str, Any], at: str, notes: list[str]) -> Distribution:
    every = {"distribution", "parameters", *(key for kind in KINDS.values() for key in kind.keys)}
    checked.known(found, sorted(every), at)
    found = dict(found)
    for key in ("min", "max", "q", "mu", "sigma", "a", "b"):
        if key in found:
            found[key] = checked.number(found[key], f"{at}.{key}", notes)
    name = checked.one_of(found.pop("distribution"), KINDS, f"{at}.distribution") if "distribution" in found else None
    kind = KINDS[name or _inferred(found, at)]
    if misplaced := [key for key in found if key not in kind.keys]:
        keys = ", ".join(kind.keys)
        raise UserError(f"{at}.{misplaced[0]}: {kind.name} does not take it; it takes {keys}")
    if absent := [key for key in kind.needs if key not in found]:
        raise UserError(f"{at}.{absent[0]}: missing; {kind.name} needs {' and '.join(kind.needs)}")
    if kind.name == "int_uniform" and name is None and found["max"] - found["min"] <= 1:
        notes.append(
            f"{at}: integer bounds draw {found['min']} or {found['max']} alone, as W&B does; "
            f"write {found['min']}.0 for every number between"
        )
    _check_numbers(kind.name, found, at)
    if kind.name in _EXPONENTS and found["min"] > 0:
        notes.append(
            f"{at}: the bounds of {kind.name} are exponents of e, so that values lie between "
            f"{_EXPONENTS[kind.name](found)}; for the bounds themselves write {kind.name}_values"
        )
    values = _values(found, at)
    return Distribution(
        kind=kind.name,
        values=values,
        probabilities=_probabilities(found, values, at),
        minimum=found.get("min", 0.0),
        maximum=found.get("max", 1.0),
        **{key: found[key] for key in ("q", "mu", "sigma", "a", "b") if key in found},
    )


def _inferred(found: Mapping[str, Any], at: str) -> str:
    if "value" in found:
        return "constant"
    if "values" in found:
        return "categorical_w_probabilities" if "probabilities" in found else "categorical"
    if "min" in found or "max" in found:
        integers = all(isinstance(found.get(key, 0), int) for key in ("min", "max"))
        return "int_uniform" if integers else "uniform"
    raise UserError(f"{at}: needs value, values, min and max, or distribution")


def _check_numbers(kind: str, found: Mapping[str, Any], at: str) -> None:
    low, high = found.get("min"), found.get("max")
    if low is not None and high is not None and low >= high:
        raise UserError(f"{at}.min: {checked.shown(low)} must be below max {checked.shown(high)}")
    if KINDS[kind].positive and low is not None and low <= 0:
        raise UserError(f"{at}.min: {checked.shown(low)} must be above 0 for {kind}")
    if KINDS[kind].integer:
        for key in ("min", "max"):
            if not isinstance(found[key], int):
                raise UserError(
                    f"{at}.{key}: {checked.shown(found[key])} must be an integer for {kind}; or use uniform"
                )
    if "log_uniform" in kind and not kind.endswith("values") and high is not None and abs(high) > 700:
        raise UserError(f"{at}.max: {checked.shown(high)} is an exponent of e here, too large; use {kind}_values")
    if "q" in found and found["q"] <= 0:
        raise UserError(f"{at}.q: {checked.shown(found['q'])} must be above 0")
    if found.get("sigma", 0) < 0:
        raise UserError(f"{at}.sigma: {checked.shown(found['sigma'])} must be 0 or above")
    for key in ("a", "b"):
        if found.get(key, 1) <= 0:
            raise UserError(f"{at}.{key}: {checked.shown(found[key])} must be above 0")


def _values(found: Mapping[str, Any], at: str) -> tuple[Any, ...]:
    if "value" in found:
        return (found["value"],)
    if "values" not in found:
        return ()
    if not isinstance(found["values"], list | tuple) or not found["values"]:
        raise UserError(f"{at}.values: {checked.shown(found['values'])} must be a list of at least one value")
    return tuple(found["values"])


def _probabilities(found: Mapping[str, Any], values: tuple[Any, ...], at: str) -> tuple[float, ...]:
    if "probabilities" not in found:
        return ()
    given = found["probabilities"]
    if not isinstance(given, list | tuple):
        raise UserError(f"{at}.probabilities: {checked.shown(given)} must be a list, a number for each of values")
    numbers = tuple(checked.number(one, f"{at}.probabilities[{place}]", []) for place, one in enumerate(given))
    if len(numbers) != len(values):
        raise UserError(f"{at}.probabilities: {len(numbers)} numbers for {len(values)} values; give one for each")
    if any(number < 0 for number in numbers):
        raise UserError(f"{at}.probabilities: {checked.shown(list(given))} must be 0 or above")
    if not math.isclose(sum(numbers), 1.0, rel_tol=1e-5):
        raise UserError(f"{at}.probabilities: {checked.shown(list(given))} sum to {sum(numbers):.6g}, must sum to 1")
    return numbers
