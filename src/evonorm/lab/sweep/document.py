"""A JSON or YAML document as plain data: nothing is executed, and what JSON cannot hold is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from evonorm.lab.errors import UserError

# What a file of a few kilobytes can hold; aliases of aliases can spell more.
_MOST_NODES = 100_000


def check(content: Any) -> None:
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


def loads(text: str, *, is_json: bool) -> Any:
    """The content of JSON or YAML, in which no key is given twice. Raises UserError."""
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
