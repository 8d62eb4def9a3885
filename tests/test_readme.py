"""The Python of README and docs runs as printed, and the README's commands exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from evonorm import cli
from evonorm.layers import table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^evonorm (\w+)", README, flags=re.M)


@pytest.mark.parametrize("file", ["README.md", "docs/layers.md", "docs/sweep.md"])
def test_python_blocks_run(file: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), flags=re.S)
    assert blocks
    with mock.patch.dict(table._ROWS):  # one adds a layer
        for block in blocks:
            exec(compile(block, file, "exec"), {})


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

    layers = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    for row in TABLE:
        assert f"| `{row.name}` | `{row.text}` |" in layers


def test_as_many_batch_norms_stay_as_it_says() -> None:
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    from evonorm import convert

    with torch.device("meta"):
        model = torchvision.models.resnet50()

    def norms(model: Any) -> int:
        return sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())

    assert f"({norms(convert(model, 'evonorm-s0'))} of ResNet-50's {norms(model)})" in README
    assert norms(convert(model, "evonorm-s0", without_activation="affine")) == 0
