"""Fills a template of this folder: base.html.j2 is what pages share, each kind of page extends it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from evonorm.lab.analysis.faults import fault
from evonorm.lab.records.export import Table


@dataclass(frozen=True)
class Csv:
    """A table to take away: the file's name, what it is in words, its rows, and its content as an address."""

    name: str
    words: str
    rows: int
    href: str


def as_csv(table: Table, name: str, words: str) -> Csv:
    """A table as a file that the page itself holds."""
    return Csv(name, words, len(table.rows), "data:text/csv;charset=utf-8," + quote(table.csv(), safe=",:;=+()/"))


def fill(template: str, **content: Any) -> str:
    """The page as text, self-contained: it loads nothing from anywhere. A name that is missing is an error."""
    loader = jinja2.PackageLoader("evonorm.lab.pages", "")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"data": as_data, "fault": fault}
    environment.globals["source"] = lambda name: Markup(loader.get_source(environment, name)[0])
    return environment.get_template(template).render(plotly=Markup(get_plotlyjs()), **content)


def as_data(value: Any) -> Markup:
    """JSON that no content can end the script element with."""
    text = json.dumps(value, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
