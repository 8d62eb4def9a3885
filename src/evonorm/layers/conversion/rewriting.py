"""Takes single operations out of a method: the way to switch off an activation that stands in a forward.

The method's own source is compiled again without those operations, in a subclass made for the one module. Everything
else stays as written: control flow, arguments, what depends on training. The class keeps its name, `isinstance` holds,
and copies and pickles rebuild the subclass from the original one.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import textwrap
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

# An argument of a call by position or name, an operand of an operator (0 or 1), or the object whose method it is.
Argument = int | str
OBJECT: Argument = -1


@dataclass(frozen=True)
class Operation:
    """A call or an operator in a source file, by line and column; argument: the one that leads to the norm's output."""

    start: tuple[int, int]
    end: tuple[int, int]
    argument: Argument


@dataclass(frozen=True)
class Edit:
    """The operation number `index` in a method, in the order of the syntax tree; text: how it reads, the check that it
    is it. stays: the way to what remains of it, an argument of it, or of that, and so on."""

    method: str
    index: int
    text: str
    stays: tuple[Argument, ...]


def locate(kind: type, method: str, chain: Sequence[Operation]) -> Edit | str:
    """The edit for the first operation of `chain`, or why there can be none.

    Each further one is an argument of the one before, and what stays is the argument of the last.
    """
    source = _source(kind, method)
    if isinstance(source, str):
        return source
    tree, first_line, indent = source
    for index, found in enumerate(_operations(tree)):
        if not _stands_at(found, chain[0], first_line, indent):
            continue
        node: ast.expr | None = found
        for operation in chain:
            if node is None or not _stands_at(node, operation, first_line, indent):
                return f"{ast.unparse(found)} in {kind.__name__}.{method} is spread over several statements"
            node = _argument(node, operation.argument)
        if node is None:
            return f"{ast.unparse(found)} in {kind.__name__}.{method} has no plain argument"
        if any(isinstance(part, ast.NamedExpr) and part not in _all(node) for part in _all(found)):
            return f"{ast.unparse(found)} in {kind.__name__}.{method} assigns a variable"
        return Edit(method, index, ast.unparse(found), tuple(operation.argument for operation in chain))
    return f"it is no expression of its own in the source of {kind.__name__}.{method}"


def _stands_at(node: ast.expr, operation: Operation, first_line: int, indent: int) -> bool:
    end = ((node.end_lineno or 0) + first_line - 1, (node.end_col_offset or 0) + indent)
    start = (node.lineno + first_line - 1, node.col_offset + indent)
    # A method's call may start at the method's name, but its end is its own; an operator's is its last operand's.
    starts = start <= operation.start if isinstance(node, ast.Call) else start == operation.start
    return starts and end == operation.end


def edited(module: nn.Module, edits: tuple[Edit, ...]) -> None:
    """Makes `module` an instance of its class without those operations, in place.

    Raises ValueError if the class's source is not the one that the edits were made for.
    """
    kind: Any = type(module)
    module.__class__ = _class(kind, tuple(sorted(edits, key=lambda edit: (edit.method, edit.index))))


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
    operations = _operations(tree)
    removed = {}
    for edit in edits:
        found = operations[edit.index] if edit.index < len(operations) else None
        stays: ast.expr | None = found if found is not None and ast.unparse(found) == edit.text else None
        for argument in edit.stays:
            stays = stays and _argument(stays, argument)
        if found is None or stays is None:
            raise ValueError(
                f"the plan takes {edit.text} out of {kind.__name__}.{method}, whose source has changed since; "
                "make the plan again with evonorm.plan"
            )
        removed[found] = stays
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
    """Puts what stays in an operation's place."""

    def __init__(self, removed: dict[ast.expr, ast.expr]) -> None:
        self.removed = removed

    def visit(self, node: ast.AST) -> Any:
        stays = self.removed.get(node) if isinstance(node, ast.expr) else None
        return self.visit(stays) if stays is not None else self.generic_visit(node)


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


def _operations(tree: ast.AST) -> list[ast.expr]:
    return [node for node in _all(tree) if isinstance(node, ast.Call | ast.BinOp)]


def _all(tree: ast.AST) -> list[ast.AST]:
    return list(ast.walk(tree))


def _argument(node: ast.expr, argument: Argument) -> ast.expr | None:
    """An argument of a call or operator, or None if it is not written there by itself."""
    if isinstance(node, ast.BinOp):
        return node.left if argument == 0 else node.right if argument == 1 else None
    if not isinstance(node, ast.Call) or any(isinstance(value, ast.Starred) for value in node.args):
        return None
    if argument == OBJECT:
        return node.func.value if isinstance(node.func, ast.Attribute) else None
    if isinstance(argument, int) and argument < len(node.args):
        return node.args[argument]
    # Functions of torch that are written in Python tell their first argument's place only.
    names = ("input", "x") if argument == 0 else (argument,)
    return next((keyword.value for keyword in node.keywords if keyword.arg in names), None)
