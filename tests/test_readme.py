"""The README's Python runs as printed, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

import pytest

from evonorm import cli
from evonorm.layers import table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)
COMMANDS = re.findall(r"^evonorm (\w+)", README, flags=re.M)


def test_python_blocks_run() -> None:
    assert BLOCKS
    with mock.patch.dict(table._ROWS):  # one adds a layer
        for block in BLOCKS:
            exec(compile(block, "README.md", "exec"), {})


def test_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMANDS
    for command in set(COMMANDS):
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0


def test_version_is_said_once() -> None:
    """pyproject.toml and the package agree."""
    import evonorm

    assert f'version = "{evonorm.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_layer_is_in_the_table() -> None:
    from evonorm.layers.table import TABLE

    for row in TABLE:
        assert f"| `{row.name}` | `{row.text}` |" in README
