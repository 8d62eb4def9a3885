"""Modules of extras: a test that needs one is skipped where it is not installed, but not in CI."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def needed(module: str, extra: str) -> Any:
    """The module. Where it is missing, the tests of the file that asks are skipped with the reason; in CI they fail."""
    if os.environ.get("CI"):
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=f"the extra `{extra}` is not installed")
