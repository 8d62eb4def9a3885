"""--config of `evonorm train`: the file looked at before it is parsed, so that what is wrong is told in words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from evonorm.cli.parsing import given_to
from evonorm.lab.errors import UserError
from evonorm.spelling import meant

_REMEDY = "--config takes a YAML file such as `layer: bn-relu`, a name of `evonorm train --help` a line"


def given_in(arguments: Sequence[str]) -> list[Path]:
    """The files that a command line names with --config."""
    return [Path(word) for word in given_to("--config", arguments)]


def task_of(path: Path) -> list[str]:
    """The task that the file names, if it does and can be read."""
    import yaml

    try:
        content = yaml.safe_load(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return []  # `check` says it
    return [str(content["task"])] if isinstance(content, dict) and "task" in content else []


def check(path: Path, names: Collection[str]) -> None:
    """Raises UserError unless `path` is a YAML mapping of `names`; those with a dot, `seeds.model`, may be nested."""
    import yaml

    try:
        content = yaml.safe_load(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}; {_REMEDY}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text: byte {error.start} is not UTF-8; {_REMEDY}") from None
    except (yaml.YAMLError, ValueError) as error:
        # Its first line is about the parser's state, the mark about the file.
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path} is not YAML: {where}{what}; {_REMEDY}") from None
    if content is None:
        raise UserError(f"{path} names no option; {_REMEDY}")
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold names and values, not a {type(content).__name__}; {_REMEDY}")
    _check_names(path, content, names, "")


def _check_names(path: Path, content: dict[object, object], names: Collection[str], above: str) -> None:
    nested = {name.partition(".")[0] for name in names if "." in name}
    for key, value in content.items():
        name = f"{above}{key}"
        if not above and key in nested and isinstance(value, dict):
            _check_names(path, value, names, f"{key}.")
        elif name not in names and (above or key not in nested):
            raise UserError(
                f"{path}: there is no option {name!r}{meant(name, names) or '; `evonorm train --help` lists them'}"
            )
        elif not above and key in nested:
            raise UserError(f"{path}: {key} must hold names and values, as in `{key}: {{model: 1}}`: got {value!r}")
