"""A page in a real browser, without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@contextmanager
def started() -> Iterator[Any]:
    """Chromium, in which `shown` opens pages."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have chromium: .ci/run installs it")
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def shown(browser: Any, file: Path, scheme: str, width: int) -> Iterator[Any]:
    """The page once its charts are drawn; afterwards nothing may have gone wrong in it."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True)
    # A machine busy with other tests may take long over what takes a second.
    context.set_default_timeout(120_000)
    opened = context.new_page()
    troubles: list[str] = []
    opened.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("dialog", lambda dialog: (troubles.append("dialog"), dialog.dismiss()))
    opened.on("requestfailed", lambda request: troubles.append(request.url))
    opened.goto(file.as_uri())
    opened.wait_for_function(
        """[...document.querySelectorAll('.chart')].every(c => c.querySelector('.scatterlayer .trace') !== null)
        && (document.getElementById('lines') === null || document.querySelectorAll('.strip').length > 0)""",
    )
    yield opened
    assert troubles == []
    context.close()


@contextmanager
def tab(file: Path, scheme: str, width: int) -> Iterator[Any]:
    """One page in a browser of its own."""
    with started() as browser, shown(browser, file, scheme, width) as opened:
        yield opened
