"""Takes single calls out of a method: the way to switch off an activation that is called in a forward.

The method's own source is compiled again without those calls, in a subclass made for the one module. Everything else
stays as written: control flow, arguments, what depends on training. The class keeps its name, `isinstance` holds, and
copies and pickles rebuild the subclass from the original one.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import textwrap
import types
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, order=True)
class Edit:
    """The call number `index` in a method, in the order of the source; text: how it reads, the check that it is it."""

    method: str
    index: int
    text: str


def locate(kind: type, method: str, end: tuple[int, int], *, bound: bool) -> Edit | str:
    """The edit for the call that ends at `end` (line, column) in the source file, or why there can be none.

    bound: the activation is a method of the tensor, as in x.relu().
    """
    source = _source(kind, method)
    if isinstance(source, str):
        return source
    tree, first_line, indent = source
    for index, call in enumerate(_calls(tree)):
        place = ((call.end_lineno or 0) + first_line - 1, (call.end_col_offset or 0) + indent)
        if place == end:
            if _argument(call, bound=bound) is None:
                return f"{ast.unparse(call)} in {kind.__name__}.{method} has no plain argument"
            return Edit(method, index, ast.unparse(call))
    return f"its call is not found in the source of {kind.__name__}.{method}"


def edited(module: nn.Module, edits: tuple[Edit, ...]) -> None:
    """Makes `module` an instance of its class without those calls, in place.

    Raises ValueError if the class's source is not the one that the edits were made for.
    """
    kind: Any = type(module)
    module.__class__ = _class(kind, tuple(sorted(edits)))


@functools.cache
def _class(kind: type, edits: tuple[Edit, ...]) -> type:
    original, earlier = vars(kind).get("_evonorm_origin", (kind, ()))
    chain = (*earlier, edits)

    def reduce(self: Any, protocol: Any) -> Any:
        return _rebuild, (original, chain), self.__getstate__()

    members: dict[str, Any] = {
        method: _function(kind, method, [edit for edit in edits if edit.method == method])
        for method in {edit.method for edit in edits}
    }
    members |= {"__reduce_ex__": reduce, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    members |= {"__doc__": kind.__doc__, "_evonorm_origin": (original, chain)}
    return type(kind.__name__, (kind,), members)


def _rebuild(kind: type, chain: tuple[tuple[Edit, ...], ...]) -> Any:
    for edits in chain:
        kind = _class(kind, edits)
    made: Any = kind
    return made.__new__(made)


def _function(kind: type, method: str, edits: list[Edit]) -> types.FunctionType:
    source = _source(kind, method)
    if isinstance(source, str):
        raise ValueError(f"cannot convert {kind.__name__}: {source}")
    tree = source[0]
    calls = list(_calls(tree))
    removed = {}
    for edit in edits:
        call = calls[edit.index] if edit.index < len(calls) else None
        if call is None or ast.unparse(call) != edit.text:
            raise ValueError(
                f"the plan takes {edit.text} out of {kind.__name__}.{method}, whose source has changed since; "
                "make the plan again with evonorm.plan"
            )
        removed[call] = _argument(call, bound=False) or _argument(call, bound=True)
    new = ast.fix_missing_locations(_Remove(removed).visit(tree))
    old: Any = inspect.getattr_static(kind, method)
    definition: Any = new.body[0]
    definition.decorator_list = []
    # Its free variables become the enclosing function's, so that they compile as free.
    free = old.__code__.co_freevars
    outer = ast.parse("def outer():\n" + "".join(f"    {name} = None\n" for name in free) + "    pass")
    enclosing: Any = outer.body[0]
    enclosing.body[-1:] = [definition]
    text = ast.unparse(ast.fix_missing_locations(outer)) + "\n"
    filename = f"<evonorm: {kind.__module__}.{kind.__qualname__}.{method} without {', '.join(e.text for e in edits)}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    outer_code = next(c for c in compile(text, filename, "exec").co_consts if isinstance(c, types.CodeType))
    code = next(c for c in outer_code.co_consts if isinstance(c, types.CodeType) and c.co_name == old.__code__.co_name)
    cells = dict(zip(free, old.__closure__ or (), strict=True))
    made = types.FunctionType(
        code, old.__globals__, old.__name__, old.__defaults__, tuple(cells[name] for name in code.co_freevars)
    )
    made.__kwdefaults__, made.__annotations__ = old.__kwdefaults__, dict(old.__annotations__)
    made.__qualname__, made.__module__, made.__doc__ = old.__qualname__, old.__module__, old.__doc__
    return made


class _Remove(ast.NodeTransformer):
    """Puts the argument in a call's place."""

    def __init__(self, removed: dict[ast.Call, ast.expr | None]) -> None:
        self.removed = removed

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if node in self.removed:
            argument = self.removed[node]
            assert argument is not None, "locate refuses calls without an argument"
            return self.visit(argument)  # type: ignore[no-any-return]
        return self.generic_visit(node)


def _source(kind: type, method: str) -> tuple[ast.Module, int, int] | str:
    """The method's syntax tree, its first line and its indentation in the file, or why there is none."""
    function: Any = inspect.getattr_static(kind, method, None)
    if not isinstance(function, types.FunctionType):
        return f"{kind.__name__}.{method} is no plain method"
    try:
        lines, first_line = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return f"the source of {kind.__name__}.{method} is not to be had"
    text = textwrap.dedent("".join(lines))
    indent = len(lines[0]) - len(lines[0].lstrip())
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return f"the source of {kind.__name__}.{method} does not stand alone"
    if any(isinstance(n, ast.Attribute) and n.attr.startswith("__") and not n.attr.endswith("__") for n in _all(tree)):
        return f"{kind.__name__}.{method} uses private names, which mean something else outside the class"
    return tree, first_line, indent


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in _all(tree) if isinstance(node, ast.Call)]


def _all(tree: ast.AST) -> list[ast.AST]:
    return list(ast.walk(tree))


def _argument(call: ast.Call, *, bound: bool) -> ast.expr | None:
    """What stays when the call goes: its tensor."""
    if bound:
        plain = isinstance(call.func, ast.Attribute) and not call.args and not call.keywords
        return call.func.value if plain and isinstance(call.func, ast.Attribute) else None
    if call.args:
        return None if isinstance(call.args[0], ast.Starred) else call.args[0]
    return next((keyword.value for keyword in call.keywords if keyword.arg in ("input", "x")), None)
