"""A W&B sweep file, YAML or JSON, as frozen dataclasses; errors name the key's path, the value and the remedy.

Source: the configuration schema of the public `sweeps` package, 0.3.0, and the W&B docs, "sweep-config-keys".
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from evonorm.lab.errors import UserError
from evonorm.lab.sweep.distributions import KINDS, Distribution, grid_values
from evonorm.lab.sweep.hyperband import Hyperband

Method = Literal["grid", "random", "bayes"]
Goal = Literal["minimize", "maximize"]
Impute = Literal["worst", "best", "latest"]

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
# What a file of a few kilobytes can hold; aliases of aliases can spell more.
_MOST_NODES = 100_000

_TAKEN = (
    *("method", "metric", "parameters", "early_terminate", "run_cap", "name", "description", "program", "command"),
)
_IGNORED = {
    "project": "a place on W&B's server",
    "entity": "an account on W&B's server",
    "apiVersion": "a version of W&B's server",
    "kind": "it says only that this is a sweep",
}
_REFUSED = {
    "controller": "this program decides by itself; remove the key",
    "scheduler": "bring no scheduler of your own; remove it and choose method random, grid or bayes",
    "metrics": "a sweep has one metric; keep the one to choose by as `metric: {name: ..., goal: ...}`",
    "job": "W&B Launch jobs need its server; name a script with `program`",
    "image_uri": "W&B Launch images need its server; name a script with `program`",
}


@dataclass(frozen=True)
class Metric:
    """What the sweep is judged by. target: where it ends. impute: what a trial without a value counts as.

    impute_while_running: if given, bayes counts a running trial too: by its best value so far, or, before it has one,
    as this says.
    """

    name: str
    goal: Goal = "minimize"
    target: float | None = None
    impute: Impute = "worst"
    impute_while_running: Impute | None = None

    def better(self, value: float, than: float | None) -> bool:
        """Whether `value` is better; anything is better than nothing."""
        return than is None or (value > than if self.goal == "maximize" else value < than)

    def best(self, values: Iterable[float]) -> float | None:
        """The best of these values; None where there are none."""
        return (max if self.goal == "maximize" else min)(values, default=None)

    def reached(self, value: float) -> bool:
        """Whether `value` is at the target or beyond."""
        if self.target is None:
            return False
        return value >= self.target if self.goal == "maximize" else value <= self.target


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


@dataclass(frozen=True)
class Sweep:
    """A sweep file as it will be run. parameters: in W&B's order, by name; notes: what was changed or ignored."""

    method: Method
    parameters: tuple[Parameter, ...]
    metric: Metric | None = None
    early_terminate: Hyperband | None = None
    run_cap: int | None = None
    name: str | None = None
    description: str | None = None
    program: str | None = None
    command: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def nested(self, values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
        """Values by path as the nested dict that a trial gets."""
        tree: dict[str, Any] = {}
        for parameter in self.parameters:
            branch = tree
            for key in parameter.path[:-1]:
                branch = branch.setdefault(key, {})
            branch[parameter.path[-1]] = values[parameter.path]
        return tree


def read(path: Path) -> Sweep:
    """The sweep in a file: JSON if its name ends so, else YAML. Raises UserError saying what is wrong, and where."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return parse(_loads(text, is_json=path.suffix == ".json"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def parse(content: Any) -> Sweep:
    """The sweep that a loaded file, or a dict of the same shape, means. Raises UserError with the key's path."""
    _check_tree(content)
    top = _mapping(content, "")
    for key, instead in _REFUSED.items():
        if key in top:
            raise UserError(f"{key}: not supported here: {instead}")
    notes = [f"{key}: ignored, {why}" for key, why in _IGNORED.items() if key in top]
    _known(top, (*_TAKEN, *_IGNORED), "", also=_REFUSED)
    metric = _metric(top["metric"], notes) if "metric" in top else None
    if "parameters" not in top:
        raise UserError("parameters: missing; name at least one, as in `parameters: {lr: {min: 0.001, max: 0.1}}`")
    parameters = tuple(_parameters(top["parameters"], (), notes))
    by_name = {parameter.name: parameter for parameter in parameters}
    for parameter in parameters:
        if (other := by_name[parameter.name]) is not parameter:
            raise UserError(f"{parameter.place}: is called {parameter.name}, as {other.place} is; rename one")
    method = _method(top, metric, parameters)
    early = _hyperband(top["early_terminate"], metric, notes) if "early_terminate" in top else None
    return Sweep(
        method=method,
        parameters=parameters,
        metric=metric,
        early_terminate=early,
        run_cap=_integer(top["run_cap"], "run_cap", notes, least=1) if "run_cap" in top else None,
        name=_text(top, "name"),
        description=_text(top, "description"),
        program=_text(top, "program"),
        command=_command(top["command"]) if "command" in top else (),
        notes=tuple(notes),
    )


def _method(top: Mapping[str, Any], metric: Metric | None, parameters: tuple[Parameter, ...]) -> Method:
    method = top.get("method")
    if method == "custom":
        raise UserError("method: custom is not supported here: choose random, grid or bayes")
    methods = ("random", "grid", "bayes")
    if method not in methods:
        found = "missing" if method is None else f"{_shown(method)} is none{_suggestion(method, methods)}"
        raise UserError(f"method: {found}; choose random, grid or bayes")
    if method == "bayes" and metric is None:
        raise UserError("metric: missing; bayes searches by it, as in `metric: {name: loss, goal: minimize}`")
    for parameter in parameters:
        if method == "grid" and grid_values(parameter.distribution) is None:
            raise UserError(
                f"{parameter.place}: a grid cannot walk {parameter.distribution.kind}; list `values`, use integer "
                "bounds or q_uniform, or choose method random"
            )
    return cast(Method, method)


def _metric(content: Any, notes: list[str]) -> Metric:
    found = _mapping(content, "metric")
    _known(found, ("name", "goal", "target", "impute", "impute_while_running"), "metric")
    if not isinstance(found.get("name"), str) or not found["name"]:
        raise UserError(f"metric.name: {_shown(found.get('name'))} must be the name of a logged metric")
    running = found.get("impute_while_running")
    if running in ("false", False):
        running = None
    return Metric(
        name=found["name"],
        goal=_one_of(found.get("goal", "minimize"), ("minimize", "maximize"), "metric.goal"),
        target=_number(found["target"], "metric.target", notes) if found.get("target") is not None else None,
        impute=_one_of(found.get("impute", "worst"), ("worst", "best", "latest"), "metric.impute"),
        impute_while_running=None
        if running is None
        else _one_of(running, ("worst", "best", "latest", "false"), "metric.impute_while_running"),
    )


def _hyperband(content: Any, metric: Metric | None, notes: list[str]) -> Hyperband:
    at = "early_terminate"
    found = _mapping(content, at)
    _known(found, ("type", "min_iter", "max_iter", "s", "eta", "strict"), at)
    _one_of(found.get("type"), ("hyperband",), f"{at}.type")
    if metric is None:
        raise UserError(f"metric: missing; {at} stops trials by it, as in `metric: {{name: loss, goal: minimize}}`")
    if not isinstance(strict := found.get("strict", True), bool):
        raise UserError(f"{at}.strict: {_shown(strict)} must be true or false")
    min_iter, max_iter = (
        _integer(found[key], f"{at}.{key}", notes, least=1) if key in found else None
        for key in ("min_iter", "max_iter")
    )
    s = _number(found["s"], f"{at}.s", notes) if "s" in found else None
    eta = _number(found.get("eta", 3), f"{at}.eta", notes)
    if eta <= 1:
        raise UserError(f"{at}.eta: {_shown(eta)} must be above 1")
    if max_iter is not None and s is None:
        if min_iter is None:
            raise UserError(f"{at}.s: missing; max_iter needs it: the number of bands, as in `s: 2`")
        max_iter = None
        notes.append(f"{at}.max_iter: ignored without s; the bands start at min_iter")
    if max_iter is None and min_iter is None:
        raise UserError(f"{at}: needs min_iter, or max_iter with s")
    if max_iter is None and s is not None:
        notes.append(f"{at}.s: ignored without max_iter")
    if max_iter is not None and min_iter is not None:
        notes.append(f"{at}.min_iter: ignored, max_iter and s say where the bands are")
    rule = Hyperband(min_iter if max_iter is None else None, max_iter, s if max_iter is not None else None, eta, strict)
    if max_iter is not None and not rule.bands(max_iter):
        raise UserError(f"{at}: max_iter {max_iter} / eta {eta} leaves no band; raise max_iter or s, or lower eta")
    return rule


def _parameters(content: Any, above: tuple[str, ...], notes: list[str]) -> Iterable[Parameter]:
    at = "parameters" + "".join(f".{key}.parameters" for key in above)
    found = _mapping(content, at)
    if not found:
        raise UserError(f"{at}: empty; name at least one parameter")
    for key in sorted(found):
        path, here = (*above, key), f"{at}.{key}"
        if not _NAME.fullmatch(key):
            raise UserError(f"{here}: a name starts with a letter or _ and goes on with letters, digits, _ . or -")
        if not isinstance(found[key], Mapping):
            as_written = "values" if isinstance(found[key], list) else "value"
            raise UserError(f"{here}: {_shown(found[key])} must be a mapping, as in `{key}: {{{as_written}: ...}}`")
        inner = _mapping(found[key], here)
        if "parameters" in inner:
            if len(inner) > 1:
                other = next(name for name in inner if name != "parameters")
                raise UserError(f"{here}.{other}: cannot stand beside `parameters`; a nested group has no value itself")
            yield from _parameters(inner["parameters"], path, notes)
        else:
            yield Parameter(path, _distribution(inner, here, notes))


def _distribution(found: Mapping[str, Any], at: str, notes: list[str]) -> Distribution:
    every = {"distribution", "parameters", *(key for kind in KINDS.values() for key in kind.keys)}
    _known(found, sorted(every), at)
    found = dict(found)
    for key in ("min", "max", "q", "mu", "sigma", "a", "b"):
        if key in found:
            found[key] = _number(found[key], f"{at}.{key}", notes)
    name = _one_of(found.pop("distribution"), KINDS, f"{at}.distribution") if "distribution" in found else None
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
        raise UserError(f"{at}.min: {_shown(low)} must be below max {_shown(high)}")
    if KINDS[kind].positive and low is not None and low <= 0:
        raise UserError(f"{at}.min: {_shown(low)} must be above 0 for {kind}")
    if KINDS[kind].integer:
        for key in ("min", "max"):
            if not isinstance(found[key], int):
                raise UserError(f"{at}.{key}: {_shown(found[key])} must be an integer for {kind}; or use uniform")
    if "log_uniform" in kind and not kind.endswith("values") and high is not None and abs(high) > 700:
        raise UserError(f"{at}.max: {_shown(high)} is an exponent of e here, too large; use {kind}_values")
    if "q" in found and found["q"] <= 0:
        raise UserError(f"{at}.q: {_shown(found['q'])} must be above 0")
    if found.get("sigma", 0) < 0:
        raise UserError(f"{at}.sigma: {_shown(found['sigma'])} must be 0 or above")
    for key in ("a", "b"):
        if found.get(key, 1) <= 0:
            raise UserError(f"{at}.{key}: {_shown(found[key])} must be above 0")


def _values(found: Mapping[str, Any], at: str) -> tuple[Any, ...]:
    if "value" in found:
        return (found["value"],)
    if "values" not in found:
        return ()
    if not isinstance(found["values"], list | tuple) or not found["values"]:
        raise UserError(f"{at}.values: {_shown(found['values'])} must be a list of at least one value")
    return tuple(found["values"])


def _probabilities(found: Mapping[str, Any], values: tuple[Any, ...], at: str) -> tuple[float, ...]:
    if "probabilities" not in found:
        return ()
    given = found["probabilities"]
    if not isinstance(given, list | tuple):
        raise UserError(f"{at}.probabilities: {_shown(given)} must be a list, a number for each of values")
    numbers = tuple(_number(one, f"{at}.probabilities[{place}]", []) for place, one in enumerate(given))
    if len(numbers) != len(values):
        raise UserError(f"{at}.probabilities: {len(numbers)} numbers for {len(values)} values; give one for each")
    if any(number < 0 for number in numbers):
        raise UserError(f"{at}.probabilities: {_shown(list(given))} must be 0 or above")
    if not math.isclose(sum(numbers), 1.0, rel_tol=1e-5):
        raise UserError(f"{at}.probabilities: {_shown(list(given))} sum to {sum(numbers):.6g}, must sum to 1")
    return numbers


def _command(content: Any) -> tuple[str, ...]:
    if not isinstance(content, list | tuple) or not content:
        raise UserError(f"command: {_shown(content)} must be a list, as in `command: {list(DEFAULT_COMMAND)}`")
    for place, part in enumerate(content):
        if isinstance(part, Mapping | list | tuple) or part is None:
            raise UserError(f"command[{place}]: {_shown(part)} must be text or a number")
    return tuple(str(part) for part in content)


def _text(top: Mapping[str, Any], key: str) -> str | None:
    value = top.get(key)
    if value is None:
        return None
    if isinstance(value, Mapping | list | tuple):
        raise UserError(f"{key}: {_shown(value)} must be text")
    return str(value)


def _number(value: Any, at: str, notes: list[str]) -> float:
    """A finite number; one written as text, as YAML 1.1 reads 1e-5, is taken for it, with a note."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            raise UserError(f"{at}: {_shown(value)} must be a number") from None
        if not math.isfinite(number):
            raise UserError(f"{at}: {_shown(value)} must be a finite number")
        whole = re.fullmatch(r"[-+]?\d+", value)
        notes.append(f"{at}: the text {_shown(value)} is taken for the number {value}")
        return int(value) if whole else number
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{at}: {_shown(value)} must be a finite number")
    return value


def _integer(value: Any, at: str, notes: list[str], *, least: int) -> int:
    number = _number(value, at, notes)
    if number != int(number) or number < least:
        raise UserError(f"{at}: {_shown(value)} must be an integer of at least {least}")
    return int(number)


def _one_of(value: Any, names: Collection[str], at: str) -> Any:
    if not isinstance(value, str) or value not in names:
        found = "missing" if value is None else f"{_shown(value)} is not known{_suggestion(value, names)}"
        raise UserError(f"{at}: {found}; choose from {', '.join(names)}")
    return value


def _mapping(content: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        where = f"{at}: " if at else ""
        raise UserError(f"{where}{_shown(content)} must be a mapping of names to values")
    for key in content:
        if not isinstance(key, str):
            raise UserError(f"{at + '.' if at else ''}{key}: a key must be text; put it in quotes")
    return content


def _known(found: Mapping[str, Any], keys: Collection[str], at: str, *, also: Collection[str] = ()) -> None:
    for key in found:
        if key not in keys and key not in also:
            where = f"{at}.{key}" if at else key
            raise UserError(f"{where}: unknown key{_suggestion(key, keys)}; the keys are {', '.join(keys)}")


def _suggestion(value: Any, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(value), list(names), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _check_tree(content: Any) -> None:
    """Refuses what JSON cannot hold, and trees that aliases have made huge."""
    left = [(content, "")]
    for _ in range(_MOST_NODES):
        if not left:
            return
        node, at = left.pop()
        if isinstance(node, Mapping):
            left.extend((value, f"{at}.{key}" if at else str(key)) for key, value in node.items())
        elif isinstance(node, list | tuple):
            left.extend((value, f"{at}[{place}]") for place, value in enumerate(node))
        elif node is not None and not isinstance(node, str | int | float):
            raise UserError(f"{at}: {node} is read as a {type(node).__name__}; put it in quotes")
    raise UserError(f"more than {_MOST_NODES:,} values; a sweep file is smaller")


def _loads(text: str, *, is_json: bool) -> Any:
    if is_json:
        try:
            return json.loads(text, object_pairs_hook=_without_doubles)
        except json.JSONDecodeError as error:
            raise UserError(f"not JSON: {error}") from None
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """PyYAML's safe loader, which refuses a key given twice and reads 1e-5 as the number it is."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        raise UserError(f"{key.value}: given twice, again in line {key.start_mark.line + 1}")
                    seen.add(key.value)
            return cast(dict[Any, Any], super().construct_mapping(node, deep))

    exponent = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except RecursionError:
        raise UserError("nested too deeply") from None
    except yaml.YAMLError as error:
        raise UserError(f"not YAML: {error}") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"not YAML: {error}") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise UserError(f"{next(name for name in names if names.count(name) > 1)}: given twice")
    return content
