"""Where the data cannot be followed: what the modules and the source of a forward tell."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator

from torch import nn


def follower(parent: nn.Module, key: str) -> str | None:
    """The name of the child that `parent` calls on the output of its child `key` and on nothing else, if it is plain.

    Plain is `self.act(self.bn(x))`, or `x = self.bn(...)` with `x = self.act(x)` or `return self.act(x)` right after
    it, where the source names both children once. Everything else is None: an addition may stand between.
    """
    trees = list(_methods(type(parent)))
    uses = [attribute for tree in trees for node in ast.walk(tree) if (attribute := _own(node)) is not None]
    for tree in trees:
        for node in ast.walk(tree):
            name = _composed(node, key)
            for field in ("body", "orelse", "finalbody"):
                body = getattr(node, field, None)
                if isinstance(body, list):
                    for first, second in itertools.pairwise(body):
                        name = name or _consecutive(first, second, key)
            if name is not None and uses.count(name) == uses.count(key) == 1:
                return name
    return None


def _methods(kind: type) -> Iterator[ast.AST]:
    for base in kind.__mro__:
        if base is nn.Module:
            return
        for method, function in vars(base).items():
            if method != "__init__" and inspect.isfunction(function):
                try:
                    yield ast.parse(textwrap.dedent(inspect.getsource(function)))
                except (OSError, TypeError, SyntaxError):
                    continue


def _own(node: ast.AST) -> str | None:
    """x of `self.x`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None


def _called(node: ast.AST | None) -> tuple[str, ast.expr] | None:
    """x and y of `self.x(y)`."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords and (name := _own(node.func)):
        return name, node.args[0]
    return None


def _composed(node: ast.AST, key: str) -> str | None:
    outer = _called(node)
    inner = _called(outer[1]) if outer else None
    return outer[0] if outer and inner and inner[0] == key else None


def _consecutive(first: ast.stmt, second: ast.stmt, key: str) -> str | None:
    if not isinstance(first, ast.Assign) or len(first.targets) != 1 or not isinstance(first.targets[0], ast.Name):
        return None
    variable = first.targets[0].id
    norm, activation = _called(first.value), _called(getattr(second, "value", None))
    if norm is None or norm[0] != key or activation is None:
        return None
    again = isinstance(second, ast.Return) or (
        isinstance(second, ast.Assign) and [getattr(t, "id", None) for t in second.targets] == [variable]
    )
    return activation[0] if again and getattr(activation[1], "id", None) == variable else None
