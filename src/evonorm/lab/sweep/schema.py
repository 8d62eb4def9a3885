"""A W&B sweep file, YAML or JSON, as frozen dataclasses; errors name the key's path, the value and the remedy.

Source: the configuration schema of the public `sweeps` package, 0.3.0, and the W&B docs, "sweep-config-keys".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from evonorm.lab.errors import UserError
from evonorm.lab.sweep import checked, document, macros
from evonorm.lab.sweep.distributions import grid_values, sent
from evonorm.lab.sweep.hyperband import Hyperband
from evonorm.lab.sweep.parameters import Parameter, read_parameters
from evonorm.spelling import meant

Method = Literal["grid", "random", "bayes"]
Goal = Literal["minimize", "maximize"]
Impute = Literal["worst", "best", "latest"]

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")

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
class Sweep:
    """A sweep file as it will be run. parameters: in W&B's order, by name; notes: what was changed or ignored.

    file: its name.
    """

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
    file: str | None = None

    def nested(self, values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
        """Values by path as the nested dict that a trial gets."""
        tree: dict[str, Any] = {}
        for parameter in self.parameters:
            branch = tree
            for key in parameter.path[:-1]:
                branch = branch.setdefault(key, {})
            branch[parameter.path[-1]] = sent(values[parameter.path])
        return tree


def read(path: Path) -> Sweep:
    """The sweep in a file: JSON if its name ends so, else YAML. Raises UserError saying what is wrong, and where."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return replace(parse(document.loads(text, is_json=path.suffix == ".json")), file=path.name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def parse(content: Any) -> Sweep:
    """The sweep that a loaded file, or a dict of the same shape, means. Raises UserError with the key's path."""
    document.check(content)
    top = checked.mapping(content, "", "method: random, metric: {name: loss}, parameters: {lr: {min: 0.001, max: 0.1}}")
    for key, instead in _REFUSED.items():
        if key in top:
            raise UserError(f"{key}: not supported here: {instead}")
    notes = [f"{key}: ignored, {why}" for key, why in _IGNORED.items() if key in top]
    checked.known(top, (*_TAKEN, *_IGNORED), "", also=_REFUSED)
    metric = _metric(top["metric"], notes) if "metric" in top else None
    if "parameters" not in top:
        raise UserError("parameters: missing; name at least one, as in `parameters: {lr: {min: 0.001, max: 0.1}}`")
    parameters = tuple(read_parameters(top["parameters"], (), notes))
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
        run_cap=checked.integer(top["run_cap"], "run_cap", notes, least=1) if "run_cap" in top else None,
        name=checked.text(top, "name"),
        description=checked.text(top, "description"),
        program=checked.text(top, "program"),
        command=_command(top["command"], notes) if "command" in top else (),
        notes=tuple(notes),
    )


def _method(top: Mapping[str, Any], metric: Metric | None, parameters: tuple[Parameter, ...]) -> Method:
    method = top.get("method")
    if method == "custom":
        raise UserError("method: custom is not supported here: choose random, grid or bayes")
    methods = ("random", "grid", "bayes")
    if method not in methods:
        found = "missing" if method is None else f"{checked.shown(method)} is none{meant(str(method), methods)}"
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
    named = content if isinstance(content, str) else "loss"
    found = checked.mapping(content, "metric", f"metric: {{name: {named}, goal: minimize}}")
    checked.known(found, ("name", "goal", "target", "impute", "impute_while_running"), "metric")
    if not isinstance(found.get("name"), str) or not found["name"]:
        raise UserError(f"metric.name: {checked.shown(found.get('name'))} must be the name of a logged metric")
    running = found.get("impute_while_running")
    if running in ("false", False):
        running = None
    return Metric(
        name=found["name"],
        goal=checked.one_of(found.get("goal", "minimize"), ("minimize", "maximize"), "metric.goal"),
        target=checked.number(found["target"], "metric.target", notes) if found.get("target") is not None else None,
        impute=checked.one_of(found.get("impute", "worst"), ("worst", "best", "latest"), "metric.impute"),
        impute_while_running=None
        if running is None
        else checked.one_of(running, ("worst", "best", "latest", "false"), "metric.impute_while_running"),
    )


def _hyperband(content: Any, metric: Metric | None, notes: list[str]) -> Hyperband:
    at = "early_terminate"
    found = checked.mapping(content, at, f"{at}: {{type: hyperband, min_iter: 3}}")
    checked.known(found, ("type", "min_iter", "max_iter", "s", "eta", "strict"), at)
    checked.one_of(found.get("type"), ("hyperband",), f"{at}.type")
    if metric is None:
        raise UserError(f"metric: missing; {at} stops trials by it, as in `metric: {{name: loss, goal: minimize}}`")
    if not isinstance(strict := found.get("strict", True), bool):
        raise UserError(f"{at}.strict: {checked.shown(strict)} must be true or false")
    min_iter, max_iter = (
        checked.integer(found[key], f"{at}.{key}", notes, least=1) if key in found else None
        for key in ("min_iter", "max_iter")
    )
    s = checked.number(found["s"], f"{at}.s", notes) if "s" in found else None
    eta = checked.number(found.get("eta", 3), f"{at}.eta", notes)
    if eta <= 1:
        raise UserError(f"{at}.eta: {checked.shown(eta)} must be above 1")
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


def _command(content: Any, notes: list[str]) -> tuple[str, ...]:
    if not isinstance(content, list | tuple) or not content:
        words = content.split() if isinstance(content, str) else list(DEFAULT_COMMAND)
        example = [*words, *([] if any("${args" in word for word in words) else ["${args}"])]
        raise UserError(f"command: {checked.shown(content)} must be a list, as in `command: {json.dumps(example)}`")
    for place, part in enumerate(content):
        if isinstance(part, Mapping | list | tuple) or part is None:
            raise UserError(f"command[{place}]: {checked.shown(part)} must be text or a number")
    command = tuple(str(part) for part in content)
    notes += [f"command: {part} is no macro of W&B's and is left out, as it does" for part in macros.unknown(command)]
    return command
