"""The command line of a trial: W&B's macros and what each becomes, as wandb 0.31's agent does it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ENVIRONMENT = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
_OF_PARAMETERS = (
    *("args", "args_no_hyphens", "args_no_equals", "args_no_boolean_flags", "args_append_hydra", "args_override_hydra"),
    *("args_json", "args_json_file", "args_dict"),
)
KNOWN = tuple(f"${{{name}}}" for name in ("env", "interpreter", "program", *_OF_PARAMETERS))


def unknown(command: Sequence[str]) -> list[str]:
    """The elements that look like macros and are none: the agent leaves them out, whatever else they may mean."""
    return [part for part in command if _is_macro(part) and part not in KNOWN]


def arguments(parameters: Mapping[str, Any]) -> list[str]:
    """What ${args} becomes: a word a parameter, its value as Python writes it."""
    return [f"--{name}={value}" for name, value in parameters.items()]


def expand(command: Sequence[str], program: str | None, parameters: Mapping[str, Any], json_file: Path) -> list[str]:
    """The command line of a trial.

    An element that is a macro becomes its words, one that looks like one becomes nothing; ${envvar:NAME} is replaced
    inside text too, by its name where it is not set; any other text, macros of other programs inside it too, is left
    alone. ${args_json_file} writes json_file. ${interpreter} is the PATH's python, or ours where it has none.
    """
    flags = [f"{name}={value}" for name, value in parameters.items()]
    words: dict[str, list[str]] = {
        "${env}": ["/usr/bin/env"] if os.name == "posix" else [],
        "${interpreter}": ["python" if shutil.which("python") else sys.executable],
        "${program}": [program] if program is not None else [],
        "${args}": arguments(parameters),
        "${args_no_hyphens}": flags,
        "${args_no_equals}": [word for name, value in parameters.items() for word in (f"--{name}", str(value))],
        "${args_no_boolean_flags}": [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, value in parameters.items()
            if value is not False
        ],
        "${args_append_hydra}": [f"+{flag}" for flag in flags],
        "${args_override_hydra}": [f"++{flag}" for flag in flags],
        "${args_json}": [json.dumps(parameters)],
        "${args_json_file}": [str(json_file.resolve())],
        "${args_dict}": list(parameters),
    }
    line: list[str] = []
    for part in map(_with_environment, command):
        if part == "${args_json_file}":
            json_file.write_text(json.dumps(parameters) + "\n", encoding="utf-8")
        line += words.get(part, []) if _is_macro(part) else [part]
    return line


def _is_macro(part: str) -> bool:
    return part.startswith("${") and part.endswith("}") and not _ENVIRONMENT.search(part)


def _with_environment(text: str) -> str:
    return _ENVIRONMENT.sub(lambda found: os.environ.get(found[1], found[1]), text)
