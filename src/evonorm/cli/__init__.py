"""The command line: parse, call, print. Torch is imported where a command needs it."""

from __future__ import annotations

import dataclasses
import os
import sys
import typing
from collections.abc import Sequence

from evonorm import __version__

try:
    from jsonargparse import ArgumentParser
except ImportError:  # pragma: no cover - the light install
    sys.exit("evonorm: the command line needs the lab: pip install 'evonorm[lab]'")

from evonorm.cli import layers, reproduce, results, sweep, train
from evonorm.cli.common import DIVERGED, FAILED, INTERRUPTED, USER_ERROR
from evonorm.lab.config import TrainConfig
from evonorm.lab.errors import NO_ROOM, UserError

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 failed, 2 user's mistake, 3 diverged, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = build_parser().parse_args(_normalized(given))
        command = parsed.subcommand
        return _COMMANDS[command](parsed[command])
    except UserError as error:
        print(f"evonorm: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # Whoever read our output, `head` say, has had enough; Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        remedy = "; make room and repeat the command" if error.errno in NO_ROOM else ""
        print(f"evonorm: {error}{remedy}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("evonorm: interrupted", file=sys.stderr)
        return INTERRUPTED


def build_parser() -> ArgumentParser:
    """The parser of every command."""
    parser = ArgumentParser(
        prog="evonorm",
        version=__version__,
        description="Normalization-activation layers, and the lab that compares them. "
        "Start with `evonorm reproduce`, then open the page it names.",
    )
    commands = parser.add_subcommands(required=True, metavar="COMMAND")

    for module in (reproduce, train, sweep, results, layers):
        module.add(commands)
    return parser


def _normalized(arguments: list[str]) -> list[str]:
    """--train-images as --train_images, and a switch alone, --augment, as --augment true."""
    hints = typing.get_type_hints(TrainConfig)
    switches = {f"--{field.name}" for field in dataclasses.fields(TrainConfig) if hints[field.name] is bool}
    if arguments[:1] == ["sweep"] and arguments[1:] and arguments[1] not in sweep.WORDS:
        arguments = ["sweep", "run", *arguments[1:]]
    normalized = []
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            argument = name.replace("-", "_").replace("__", "--", 1) + equals + value
        normalized.append(argument)
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        if argument in switches and following.lower() not in ("true", "false"):
            normalized.append("true")
    return normalized
