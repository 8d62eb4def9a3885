"""Fills a template of this folder: base.html.j2 is what pages share, each kind of page extends it."""

from __future__ import annotations

import json
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs


def fill(template: str, **content: Any) -> str:
    """The page as text, self-contained: it loads nothing from anywhere. A name that is missing is an error."""
    loader = jinja2.PackageLoader("evonorm.lab.report", "")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["data"] = as_data
    environment.globals["source"] = lambda name: Markup(loader.get_source(environment, name)[0])
    return environment.get_template(template).render(plotly=Markup(get_plotlyjs()), **content)


def as_data(value: Any) -> Markup:
    """JSON that no content can end the script element with."""
    text = json.dumps(value, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
