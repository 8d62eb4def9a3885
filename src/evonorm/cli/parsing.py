"""The parser of every command: help in a user's words, and mistakes told in one line with what was meant."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import textwrap
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from evonorm.spelling import meant

_METAVARS = {int: "N", float: "NUMBER"}
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_LEFT_COLUMN = 14
_DEFAULT_TOLD = re.compile(r"\bdefaults?\b|left out:|alone:")


class HelpFormatter(DefaultHelpFormatter):  # type: ignore[misc]
    """Options with hyphens, defaults that say something, no types of Python, and a usage of one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._action_max_length = _LEFT_COLUMN

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> str:
        if prefix == "":  # what a command's own usage begins with
            return plain_prog(self._prog)
        places = [f"[{_place(a)}]" if a.nargs == "?" else _place(a) for a in actions if not a.option_strings]
        return f"usage: {' '.join([plain_prog(self._prog), '[options]', *places])}\n\n"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):
            return "COMMAND"
        shown = super()._format_action_invocation(action)
        return re.sub(r"--[\w.]+", lambda found: hyphened(found[0]), shown)

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if not action.option_strings or default in (None, argparse.SUPPRESS) or default in ([], ()):
            return text
        if isinstance(action, argparse._HelpAction) or _DEFAULT_TOLD.search(text):
            return text
        if isinstance(default, bool):
            shown = str(default).lower()
        else:
            shown = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        return f"{text.rstrip('.')} (default: {shown})"

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        kinds = _choices(getattr(action, "_typehint", None))
        return next((_METAVARS[kind] for kind in kinds if kind in _METAVARS), _place(action))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        wrapped = (
            textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
            for line in text.splitlines()
        )
        return "\n".join(wrapped)


class Parser(ArgumentParser):  # type: ignore[misc]
    """A command's parser. example: a command line that works as it stands, shown below the help."""

    def __init__(self, *, description: str, example: str, **given: Any) -> None:
        super().__init__(
            description=description,
            epilog=f"Example: {example}",
            formatter_class=HelpFormatter,
            allow_abbrev=False,
            **given,
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints what is wrong in one line, with what may have been meant, and exits with code 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        print(f"evonorm: {_in_words(parser, message)}", file=sys.stderr)
        sys.exit(2)


def given_to(option: str, words: Sequence[str]) -> list[str]:
    """The values that a command line gives to an option, before it is parsed: it may decide what else there is."""
    after = [word for before, word in itertools.pairwise(words) if before == option]
    return after + [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]


def hyphened(option: str) -> str:
    """An option as it is shown: --learning_rate as --learning-rate."""
    return option.replace("_", "-")


def plain_prog(prog: str) -> str:
    """The command's words, without what jsonargparse puts between them."""
    return prog.replace(" [options]", "")


def _in_words(parser: ArgumentParser, message: str) -> str:
    """A message of argparse's or jsonargparse's in the words of this command line."""
    prog = plain_prog(parser.prog)
    if found := re.match(r"unrecognized arguments: (.+)", message, re.DOTALL):
        if not found[1].startswith("-"):
            return f"{prog} does not know what to do with {found[1].split()[0]!r}; `{prog} --help` says what it takes"
        return _no_option(parser, hyphened(found[1]))
    if found := re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose", message, re.DOTALL):
        commands = _commands(parser)
        hint = meant(found[1], commands, shown=str) or f"; choose from {', '.join(commands)}"
        return f"there is no COMMAND {found[1]!r} of {prog}{hint}"
    if found := re.match(r'expected "(?:([\w.]+)\.)?subcommand"', message):
        at = _below(parser, (found[1] or "").split("."))[0]
        prog = plain_prog(at.prog)
        return f"which COMMAND of {prog}? {', '.join(_commands(at))}; `{prog} --help` explains them"
    if found := re.match(r"the following arguments are required: (.+)", message):
        return _missing(parser, found[1].split(", "))
    if found := re.match(r"argument (-\S+?): expected (.+)", message):
        return f"{hyphened(found[1])} needs a value"
    found = re.match(r'Parser key "([^"]+)"(?: element \d+)?:', message)
    action = _action(parser, found[1]) if found else None
    if found and action is not None:
        given = re.findall(r"(?:Given value|Got value): (.*)", message)
        name = hyphened(action.option_strings[-1]) if action.option_strings else _place(action)
        kinds = _choices(getattr(action, "_typehint", None))
        if given and kinds:
            return f"{name} must be {_expected(kinds)}: got {given[-1]}{_near_choice(given[-1], kinds)}"
    return " ".join(message.split())


def _no_option(parser: ArgumentParser, rest: str) -> str:
    """rest: of the command line, from the option on. What `--set NAME=VALUE` of a sweep names may be an option here."""
    found = re.match(r"(--?([^\s=]*))(?:[\s=]([^\s=]+)=)?", rest)
    assert found is not None
    shown, option, name = found.groups()
    root, prog = parser, plain_prog(parser.prog)
    while hasattr(root, "parent_parser"):
        root = root.parent_parser
    owners = [f"`{plain_prog(one.prog)}`" for one in _every(root) if option in _options(one)]
    told = f"{prog} has no option {shown}" + (f", which is of {', '.join(owners)}" if owners else "")
    near = meant(name if owners and name else option, _options(parser), shown="--{}".format)
    return told + (near or f"; `{prog} --help` lists them")


def _every(parser: ArgumentParser) -> list[ArgumentParser]:
    """The parser and those of all commands below it."""
    below = [parser._subcommands_action._name_parser_map[name] for name in _commands(parser)]
    return [parser, *(one for command in below for one in _every(command))]


def _options(parser: ArgumentParser) -> list[str]:
    """Long ones, without their hyphens before."""
    every = (one for action in parser._actions for one in action.option_strings)
    return [hyphened(one[2:]) for one in every if one.startswith("--")]


def _missing(parser: ArgumentParser, dests: list[str]) -> str:
    names = []
    for dest in dests:
        at, rest = _below(parser, dest.split("."))
        key = ".".join(rest)
        action = _action(at, key)
        shown = key if action is None else (action.option_strings or [_place(action)])[-1]
        names.append((at, hyphened(shown)))
    prog = plain_prog(names[0][0].prog)
    return f"{prog} needs {' and '.join(name for _, name in names)}; `{prog} --help` says what it is"


def _below(parser: ArgumentParser, words: list[str]) -> tuple[ArgumentParser, list[str]]:
    """The parser of the command that the first words name, and the words after them."""
    while words and words[0] in _commands(parser):
        parser, words = parser._subcommands_action._name_parser_map[words[0]], words[1:]
    return parser, words


def _commands(parser: ArgumentParser) -> list[str]:
    below = parser._subcommands_action
    return list(below._name_parser_map) if below is not None else []


def _action(parser: ArgumentParser, dest: str) -> argparse.Action | None:
    return next((action for action in parser._actions if action.dest == dest), None)


def _place(action: argparse.Action) -> str:
    """What stands for an argument's value in help."""
    metavar = action.metavar if isinstance(action.metavar, str) else None
    return metavar or action.dest.rpartition(".")[2].upper().replace("_", "-")


def _choices(hint: Any) -> tuple[Any, ...]:
    """The kinds of a type hint without None: int of `list[int] | None`, the words of a Literal."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union, list):
        return tuple(kind for part in typing.get_args(hint) for kind in _choices(part))
    return () if hint in (None, type(None)) else (hint,)


def _expected(kinds: tuple[Any, ...]) -> str:
    words = [_KINDS.get(kind, str(kind)) if isinstance(kind, type) else str(kind) for kind in kinds]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _near_choice(given: str, kinds: tuple[Any, ...]) -> str:
    return meant(given.strip("'\""), [kind for kind in kinds if isinstance(kind, str)], shown=str)
