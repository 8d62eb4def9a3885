"""A sweep's page and pictures: every state of a trial, hostile names, and a real browser."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from evonorm import cli
from evonorm.lab.analysis import swept
from evonorm.lab.errors import UserError
from evonorm.lab.pages import page, parallel, sweep_charts
from tests.lab import sweeps
from tests.lab.pages.browser import tab
from tests.lab.sweeps import HOSTILE


def learned(parameters: dict[str, Any], rng: random.Random) -> float:
    return 0.6 + 0.1 * math.log10(parameters["learning_rate"]) + 0.02 * rng.gauss(0, 1)


def mixed(count: int) -> list[dict[str, Any]]:
    """Every status there is."""
    rows = sweeps.drawn(count, learned)
    for place, row in enumerate(rows):
        if place % 10 == 3:
            row.update(status="diverged", error="Activations grew to 1e+30 at stem.norm")
        elif place % 10 == 5:
            row.update(status="failed", value=None, error="RuntimeError: the roof fell in")
        elif place % 10 == 7:
            row.update(status="pruned", history=[0.1, row["value"]])
    rows[-1].update(status="running", value=None)
    rows[-2].update(status="waiting", value=None)
    return rows


def text_of(html: str) -> str:
    body = re.sub(r"<(script|style).*?</\1>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).replace("&#39;", "'")


def figures(html: str) -> list[dict[str, Any]]:
    found = [
        json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html, flags=re.S)
    ]
    return [figure for figure in found if isinstance(figure, dict) and "layout" in figure]


def test_every_state_of_a_trial(tmp_path: Path) -> None:
    html = page.render(sweeps.write(tmp_path, mixed(40)))
    text = text_of(html)
    for expected in (
        "40 trials: 26 finished, 4 pruned, 4 diverged, 4 failed, 1 running, 1 waiting.",
        "Best accuracy:",
        "the roof fell in",
        "Activations grew to 1e+30",
        "stopped early, after 2 reports",
        "The report's conclusions",
        "for every trial batch_size 128",
        "From 34 trials that ended with a value",
    ):
        assert expected in text, expected
    # A table twin for every chart, and the trials' table for the lines.
    titles = re.findall(r"<h3>(.*?)</h3>", html)
    assert [f"Table of {title}" in text for title in titles] == [True] * len(titles)
    assert len(figures(html)) == len(titles) + 1 == 10
    assert len(re.findall(r'<tr data-status="\w+">', html)) == 40


def test_what_does_not_stand_for_its_value_is_a_cross_beyond_the_worst(tmp_path: Path) -> None:
    found = swept.read(sweeps.write(tmp_path, mixed(40)))
    assert found.measure is not None
    chart = sweep_charts.against(found, found.axes[0])
    points, crosses = chart.figure["data"][:2]
    assert len(points["x"]) == 30
    assert len(crosses["x"]) == 8
    assert max(crosses["y"]) < min(points["y"]) == found.measure.low


def test_axes(tmp_path: Path) -> None:
    config = {
        "method": "random",
        "metric": {"name": "loss"},
        "parameters": {
            "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-4},
            "listed": {"values": [1e-5, 1e-1]},
            "close": {"values": [1, 2]},
            "flag": {"values": [True, False]},
            "name": {"values": ["b", "a"]},
            "deep": {"parameters": {"n": {"min": -3, "max": 3}}},
            "fixed": {"value": 3},
        },
    }
    rng = random.Random(0)
    rows = [
        {
            "parameters": {
                "lr": 10 ** rng.uniform(-5, -4),
                "listed": rng.choice([1e-5, 1e-1]),
                "close": rng.choice([1, 2]),
                "flag": rng.choice([True, False]),
                "name": rng.choice(["b", "a"]),
                "deep": {"n": rng.randint(-3, 3)},
                "fixed": 3,
            },
            "value": rng.random(),
        }
        for _ in range(30)
    ]
    found = swept.read(sweeps.write(tmp_path, rows, config))
    scales = {axis.name: axis.scale for axis in found.axes}
    assert scales == {
        **{"lr": "log", "listed": "log", "close": "linear", "flag": "category", "name": "category", "deep.n": "linear"}
    }
    assert found.constants == {"fixed": 3}
    by_name = {axis.name: axis for axis in found.axes}
    assert by_name["name"].labels == ("b", "a")  # as the file has them
    assert by_name["flag"].labels == ("true", "false")
    assert by_name["lr"].place(by_name["lr"].low) == 0
    assert by_name["listed"].place(1e-3) == pytest.approx(0.5)
    assert (by_name["lr"].choices, by_name["close"].choices) == ((), (1, 2))


def test_best_so_far_by_the_drivers_clock_or_by_trials(tmp_path: Path) -> None:
    rows = [{"parameters": {"x": float(i)}, "value": value} for i, value in enumerate([3.0, 5.0, 1.0, 2.0])]
    config = {"method": "random", "metric": {"name": "loss"}, "parameters": {"x": {"min": 0.0, "max": 9.0}}}
    with_clock = swept.read(sweeps.write(tmp_path / "new", rows, config))
    points, unit = sweep_charts.best_so_far(with_clock, "time")
    assert ([point.x for point in points], unit) == ([1.5, 3.5, 5.5, 7.5], "seconds")
    assert [point.best for point in points] == [3.0, 3.0, 1.0, 1.0]
    without = swept.read(sweeps.write(tmp_path / "old", rows, config, clock=False))
    points, unit = sweep_charts.best_so_far(without, "time")
    assert ([point.x for point in points], unit) == ([1.5, 3.0, 4.5, 6.0], "seconds of trials, added up")


@pytest.mark.parametrize(("lost", "grey"), [(0, False), (3, True)])
def test_equal_values_are_in_no_fifth(lost: int, grey: bool, tmp_path: Path) -> None:
    rows = sweeps.drawn(12, lambda *_: 0.25)
    for row in rows[:lost]:
        row.update(status="failed", value=None, error="the roof fell in")
    text = text_of(page.render(sweeps.write(tmp_path, rows)))
    legend = text.split("drag")[1].split("12 of 12 trials")[0]
    assert "all alike: 0.25" in legend
    assert "fifth" not in legend
    assert ("no value" in legend) is grey


def test_fifths_by_rank() -> None:
    measured = swept.Metric("accuracy", "maximize")
    trials = [swept.Trial(i, {}, status="finished", value=v) for i, v in enumerate([0.1, 0.9, 0.5, 0.5, 0.7])]
    found = swept.Swept({}, tuple(trials), (), {}, measured, {t.number: t.value or 0.0 for t in trials})
    assert parallel.fifths(found) == [0, 4, 2, 2, 3]


def hostile(folder: Path) -> Path:
    """Every name that a file leaves free, the keys of a listed mapping too, which become parameters' names."""
    values = [HOSTILE, "{{ 7 * 7 }}", "$x_$", "%{y}"]
    config = {
        "method": "random",
        "metric": {"name": HOSTILE, "goal": "maximize"},
        "name": HOSTILE,
        "description": HOSTILE,
        "program": "x.py",
        "parameters": {
            "deep": {"values": [{HOSTILE: value} for value in values]},
            "__proto__": {"min": 0.0, "max": 1.0},
        },
    }
    rows: list[dict[str, Any]] = [
        {"parameters": {"deep": {HOSTILE: values[i % 4]}, "__proto__": i / 30}, "value": (i % 4) + i / 30}
        for i in range(30)
    ]
    rows[3].update(status="failed", value=None, error=HOSTILE)
    return sweeps.write(folder, rows, config, runs={"program": HOSTILE, "command": [HOSTILE, "${args}"]})


def test_names_and_values_cannot_break_out(tmp_path: Path) -> None:
    html = page.render(hostile(tmp_path))
    assert HOSTILE not in html
    assert "<img src=x" not in html
    assert "{{ 7 * 7 }}" in html.replace("&#123;", "{")
    # What a reader may follow is not loaded.
    assert not re.search(
        r"""(src|href|url)\s*[=(]\s*["']?(https?:|//)""",
        re.sub(r'<script>.*?</script>|<a href="https://[^"]*">', "", html, flags=re.S),
    )


@pytest.mark.parametrize(
    ("rows", "config"),
    [
        (sweeps.drawn(1, learned), sweeps.REPORT),
        (sweeps.drawn(4, learned), {key: value for key, value in sweeps.REPORT.items() if key != "metric"}),
        (
            [{"parameters": {"x": 1}, "value": None, "status": "waiting"}],
            {"method": "grid", "parameters": {"x": {"value": 1}}},
        ),
        ([row | {"status": "failed", "value": None} for row in sweeps.drawn(9, learned)], sweeps.REPORT),
        ([row | {"status": "diverged"} for row in sweeps.drawn(9, learned)], sweeps.REPORT),
        (sweeps.drawn(9, lambda p, rng: rng.choice([1e308, -1e308])), sweeps.REPORT),
        (sweeps.drawn(9, lambda p, rng: 10 ** rng.uniform(-5, 5)), sweeps.REPORT),
        (
            [{"parameters": {"x": v}, "value": 1.0} for v in (10**400, None, [1], {"a": 2}, "")],
            {"method": "grid", "metric": {"name": "y"}, "parameters": {"x": {"values": ["?"]}}},
        ),
    ],
    ids=["one", "no metric", "nothing yet", "all failed", "all diverged", "huge", "wide", "odd values"],
)
def test_thin_and_odd_sweeps(tmp_path: Path, rows: list[dict[str, Any]], config: dict[str, Any]) -> None:
    folder = sweeps.write(tmp_path / "sweep", rows, config)
    assert "Every trial" in page.render(folder)
    page.draw(folder, tmp_path / "pictures")


def test_folders_without_a_page(tmp_path: Path) -> None:
    sweeps.write(tmp_path / "empty", [])
    with pytest.raises(UserError, match="has no trials yet"):
        page.render(tmp_path / "empty")
    sweeps.write(tmp_path / "broken", sweeps.drawn(2, learned))
    (tmp_path / "broken" / "sweep.json").write_text('{"sweep": {"metric": 3}}')
    with pytest.raises(UserError, match="is not a sweep that can be read"):
        page.render(tmp_path / "broken")


def test_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    folder = hostile(tmp_path / "sweep")
    arguments = ["report", str(folder), "-o", str(tmp_path / "page.html"), "--png", str(tmp_path / "png")]
    assert cli.main(arguments) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == str(tmp_path / "page.html")
    assert [Path(line).name for line in told[1:6]] == [
        f"{name}.png" for name in ("lines", "best-by-trial", "best-by-time", "importance", "correlation")
    ]
    assert len(told) == 8
    for line in told[1:]:
        assert Path(line).parent == tmp_path / "png"
        with Image.open(line) as picture:
            assert picture.width >= 1200
            assert picture.getpixel((0, 0))[:3] == (255, 255, 255)  # type: ignore[index]
            colours = picture.convert("L").getcolors()
            assert colours is not None
            assert len(colours) > 5
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --png"):
        page.draw(folder, tmp_path / "file" / "png")


def test_a_sweep_writes_its_page_at_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.py").write_text(
        "import json, sys\nx = float(sys.argv[1].split('=')[1])\nprint(json.dumps({'loss': (x - 0.3) ** 2}))\n"
    )
    file = tmp_path / "s.yaml"
    file.write_text(
        "method: random\nprogram: job.py\nrun_cap: 9\nmetric: {name: loss}\nparameters: {x: {min: 0.0, max: 1.0}}\n"
    )
    out = tmp_path / "out"
    assert cli.main(["sweep", str(file), "--out", str(out), "--workers", "2"]) == 0
    assert f"page: {out / 'report.html'}" in capsys.readouterr().out
    assert "Best loss against time" in (out / "report.html").read_text(encoding="utf-8")
    (out / "report.html").unlink()
    (out / "report.html").mkdir()  # the page cannot be written: the sweep has ended well all the same
    assert cli.main(["sweep", str(file), "--out", str(out)]) == 0
    assert "no page: cannot write the page" in capsys.readouterr().out


SHOWN = "[...document.querySelectorAll('#trials tbody tr')].filter(row => !row.hidden)"
CELLS = SHOWN + ".map(row => row.cells[{column}].textContent)"
SELECTED = "[...document.querySelectorAll('.charts.small .chart')].map(c => c.data[0].selectedpoints?.length ?? null)"


def test_brushing_sorting_and_the_keyboard(tmp_path: Path) -> None:
    page.write(sweeps.write(tmp_path, mixed(200)), tmp_path / "report.html")
    with tab(tmp_path / "report.html", "light", 1300) as opened:

        def passing(count: int) -> None:
            opened.wait_for_function(f"{SHOWN}.length === {count}")
            assert opened.inner_text("#passing").startswith(f"{count} of 200 trials")

        passing(200)
        # By keyboard: a value of groups, then the end of a range.
        opened.focus("fieldset[data-axis='0'] input >> nth=0")
        opened.keyboard.press("Space")
        groups = opened.evaluate(CELLS.format(column=3))
        opened.wait_for_function(f"!{CELLS.format(column=3)}.includes('4')")
        without = [group for group in groups if group != "4"]
        passing(len(without))
        opened.focus("fieldset[data-axis='2'] .from")
        for _ in range(40):
            opened.keyboard.press("ArrowRight")
        opened.wait_for_function(f"{SHOWN}.length < {len(without)}")
        least = float(opened.inner_text("fieldset[data-axis='2'] output >> nth=0"))
        assert 0.1 < least < 0.3
        assert opened.get_attribute("fieldset[data-axis='2'] .from", "aria-valuetext") == str(least)
        # The table follows a key press a frame later.
        opened.wait_for_function(f"{CELLS.format(column=5)}.every(cell => Number(cell) >= {least - 0.01})")
        assert opened.evaluate("document.querySelectorAll('.strip i').length") == 5
        assert opened.evaluate("[...document.querySelectorAll('.strip i')].map(i => i.style.display)") == [
            *("block", "none", "block", "none", "none")
        ]
        # The other charts follow when they come into view: the points of trials that pass stay.
        opened.evaluate("document.getElementById('against').scrollIntoView()")
        opened.wait_for_function(f"{SELECTED}[3] !== null")
        visible = opened.evaluate(
            f"{SHOWN}.filter(row => ['finished', 'pruned'].includes(row.cells[1].textContent)).length"
        )
        assert opened.evaluate(SELECTED)[3] == visible
        opened.focus("#clear")
        opened.keyboard.press("Enter")
        passing(200)
        assert opened.evaluate("document.getElementById('clear').disabled")

        # By mouse: drag over the upper part of the metric's axis; a click opens it again.
        strip = opened.locator(".strip").nth(4)
        strip.scroll_into_view_if_needed()
        box = strip.bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2
        opened.mouse.move(middle, box["y"] + 2)
        opened.mouse.down()
        opened.mouse.move(middle, box["y"] + box["height"] * 0.2)
        opened.mouse.move(middle, box["y"] + box["height"] * 0.4)
        opened.mouse.up()
        opened.wait_for_function(f"{SHOWN}.length < 150")
        cells = opened.evaluate(CELLS.format(column=2))
        everything = [value for row in mixed(200) if (value := row.get("value")) is not None]
        assert min(float(cell) for cell in cells) > min(everything) + 0.5 * (max(everything) - min(everything))
        assert "diverged" not in opened.evaluate(CELLS.format(column=1))
        # The lines are drawn a frame after the table.
        counts = "document.getElementById('lines').data.map(trace => trace.places.length)"
        opened.wait_for_function(f"{counts}[0] === {200 - len(cells)}")
        assert sum(opened.evaluate(counts)) == 200
        opened.mouse.click(middle, box["y"] + box["height"] * 0.7)
        passing(200)

        # Sorting, from the keyboard; what has no value stays last.
        header = "#trials thead th:nth-child(3)"
        for direction in ("ascending", "descending"):
            opened.focus(f"{header} button")
            opened.keyboard.press("Enter")
            assert opened.get_attribute(header, "aria-sort") == direction
            cells = opened.evaluate(CELLS.format(column=2))
            known = [float(cell) for cell in cells if cell != "–"]
            assert known == sorted(known, reverse=direction == "descending")
            assert cells[len(known) :] == ["–"] * 22
        # Words and statuses.
        opened.fill("#words", "the roof fell in")
        passing(20)
        opened.fill("#words", "")
        opened.uncheck("#statuses input[value=finished]")
        passing(62)


@pytest.mark.parametrize(("scheme", "width"), [("dark", 360), ("light", 1300)])
def test_hostile_names_in_a_browser(tmp_path: Path, scheme: str, width: int) -> None:
    page.write(hostile(tmp_path), tmp_path / "report.html")
    with tab(tmp_path / "report.html", scheme, width) as opened:
        assert opened.evaluate("window.harmed") is None
        assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        ink = opened.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
        assert (max(int(part) for part in re.findall(r"\d+", ink)[:3]) > 128) == (scheme == "dark")
        # Whatever can be reached by keyboard says what it is.
        nameless = opened.evaluate(
            """[...document.querySelectorAll('button, input, [tabindex="0"]')].filter(e =>
                !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim())).length"""
        )
        assert nameless == 0


def test_a_thousand_trials_in_a_browser(tmp_path: Path) -> None:
    """Lines are grouped into few traces, and one hundred steps of a range leave one table behind, not a hundred."""
    page.write(sweeps.write(tmp_path, mixed(1000)), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 7e6
    with tab(tmp_path / "report.html", "light", 1300) as opened:
        assert opened.evaluate("document.getElementById('lines').data.length") == 7
        opened.evaluate(
            """() => { const from = document.querySelector("fieldset[data-axis='2'] .from");
            window.redrawn = 0;
            document.getElementById('lines').on('plotly_afterplot', () => { window.redrawn += 1; });
            for (let step = 1; step <= 100; step++) {
              from.value = step * 5; from.dispatchEvent(new Event('input', {bubbles: true}));
            } }"""
        )
        opened.wait_for_function(f"{SHOWN}.length < 700")
        assert opened.evaluate("window.redrawn") <= 5
