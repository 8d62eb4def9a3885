"""The command line: parse, call, print. Torch is imported where a command needs it."""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

from evonorm import __version__
from evonorm.cli import config_file, layers, reproduce, results, sweep, train
from evonorm.cli.common import DIVERGED, FAILED, INTERRUPTED, USER_ERROR
from evonorm.cli.parsing import Parser
from evonorm.lab.errors import NO_ROOM, UserError
from evonorm.lab.stopping import seconds_of, within
from evonorm.lab.training.config import TrainConfig
from evonorm.spelling import nearest

__all__ = ["DIVERGED", "FAILED", "INTERRUPTED", "USER_ERROR", "build_parser", "main"]

_COMMANDS = {
    "reproduce": reproduce.run,
    "train": train.run,
    "sweep": sweep.run,
    "report": results.report,
    "export": results.export,
    "bench": layers.bench,
    "layers": layers.layers,
    "plan": layers.plan,
}

_WRONG_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 failed, 2 user's mistake, 3 diverged, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        arguments = _normalized(given)
        if arguments[:1] == ["train"]:
            for file in config_file.given_in(arguments):
                config_file.check(file, train.names(arguments))
        parsed = build_parser(given).parse_args(arguments)
        command = parsed.subcommand
        options = parsed[command]
        below = options.get("subcommand")
        with within(seconds_of((options[below] if below else options).get("for"))):
            return _COMMANDS[command](options)
    except UserError as error:
        print(f"evonorm: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # Whoever read our output, `head` say, has had enough; Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno in _WRONG_PLACE and error.filename is not None:
            print(f"evonorm: {error.filename}: {error.strerror}; name another place, or mend this one", file=sys.stderr)
            return USER_ERROR
        remedy = "; make room and repeat the command" if error.errno in NO_ROOM else ""
        print(f"evonorm: {error}{remedy}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("evonorm: interrupted", file=sys.stderr)
        return INTERRUPTED


def build_parser(given: Sequence[str] = ()) -> Parser:
    """The parser of every command. given: the command line, where what it names has options of its own."""
    parser = Parser(
        prog="evonorm",
        version=__version__,
        description="Normalization-activation layers, and the lab that compares them. "
        "Start with `evonorm reproduce`, then open the page it names.",
        example="evonorm train --data digits --layer evonorm-s0 --epochs 3",
    )
    commands = parser.add_subcommands(
        required=True, metavar="COMMAND", title="commands", description="`evonorm COMMAND --help` says more of each"
    )

    reproduce.add(commands, given)
    train.add(commands, given)
    for module in (sweep, results, layers):
        module.add(commands)
    return parser


def _normalized(arguments: list[str]) -> list[str]:
    """--train-images as --train_images, and a switch alone, --augment, as --augment true.

    `train` has no arguments but options: what follows a switch and is none is its value.
    """
    hints = typing.get_type_hints(TrainConfig)
    switches = {f"--{field.name}" for field in dataclasses.fields(TrainConfig) if hints[field.name] is bool}
    if arguments[:1] == ["sweep"] and arguments[1:] and not _sweep_word(arguments[1]):
        arguments = ["sweep", "run", *arguments[1:]]
    normalized = []
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            argument = name.replace("-", "_").replace("__", "--", 1) + equals + value
        normalized.append(argument)
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        if argument in switches and following.startswith("-"):
            normalized.append("true")
    return normalized


def _sweep_word(word: str) -> bool:
    """Whether it is a command below `sweep`, or was to be one; else it is the sweep file, its `run` left out."""
    return word in sweep.WORDS or (not Path(word).exists() and "." not in word and bool(nearest(word, sweep.WORDS)))
