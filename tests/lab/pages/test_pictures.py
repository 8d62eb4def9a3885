"""Pictures: every dash, marker, shape and note that a chart may have; legends whole, each entry once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from evonorm import cli
from evonorm.lab.pages import picture_marks, pictures
from evonorm.lab.pages.charts import Chart
from evonorm.lab.training.config import TrainConfig
from tests.lab.pages.test_report import epochs_of, make_run

DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "triangle-up", "triangle-down", "diamond", "x")
OPEN = tuple(f"{symbol}-open" for symbol in SYMBOLS)
THIN = ("x-thin", "x-thin-open", "line-ns-open")


def line(name: str, **more: Any) -> dict[str, Any]:
    drawn = {"type": "scatter", "mode": "lines+markers", "name": name, "x": [1, 2, 3], "y": [1.0, None, 2.0]}
    return drawn | {"line": {"color": "#009e73", "dash": "solid", "width": 2}, "marker": {"color": "#009e73"}} | more


def chart(*data: Mapping[str, Any], title: str = "Loss", **layout: Any) -> Chart:
    return Chart(title, "", {"data": list(data), "layout": layout}, (), ())


def drawn(monkeypatch: pytest.MonkeyPatch, made: Chart, folder: Path, kind: str = "png") -> Figure:
    """The figure that is written."""
    figures: list[Figure] = []
    save = Figure.savefig

    def kept(figure: Figure, *arguments: Any, **more: Any) -> None:
        save(figure, *arguments, **more)
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", kept)
    pictures.write({"chart": made}, folder, kind)
    return figures[0]


def texts(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("dash", DASHES)
@pytest.mark.parametrize("symbol", [*SYMBOLS, *OPEN, *THIN])
def test_a_legend_shows_line_and_marker_as_the_chart_does(dash: str, symbol: str) -> None:
    one = line("a", line={"color": "#d55e00", "dash": dash, "width": 2}, marker={"color": "#d55e00", "symbol": symbol})
    handle = picture_marks.handle(one)
    axes = Figure().subplots()
    picture_marks.trace(axes, one)
    path, points = axes.lines
    assert handle.get_linestyle() == path.get_linestyle()
    assert handle._unscaled_dash_pattern == path._unscaled_dash_pattern  # type: ignore[attr-defined]
    assert handle.get_marker() == points.get_marker()
    assert handle.get_markerfacecolor() == points.get_markerfacecolor()
    assert to_hex(handle.get_markeredgecolor()) == "#d55e00"
    assert (handle.get_markerfacecolor() == "none") == symbol.endswith("-open")


def test_dashes_and_symbols_differ() -> None:
    looks = [picture_marks._dash({"dash": dash}) for dash in DASHES]
    shapes = [picture_marks.handle(line("a", marker={"symbol": symbol})).get_marker() for symbol in SYMBOLS]
    assert len({str(look) for look in looks}) == len(DASHES)
    assert len(set(shapes)) == len(SYMBOLS)


@pytest.mark.parametrize("name", ["short", "evonorm-s0, 32 groups, augmented, SGD, batch 128", "word " * 40, "m" * 200])
@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_legend_is_whole_and_has_each_name_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    names = [f"{place} {name}".strip() for place in range(count)]
    # A name's second trace is its training curve, or its cross.
    data = [line(one, showlegend=True) for one in names for _ in range(2)]
    figure = drawn(monkeypatch, chart(*data), tmp_path)
    assert [text.replace("\n", "").replace(" ", "") for text in texts(figure)] == [
        one.replace(" ", "") for one in names
    ]
    (legend,), axes = figure.legends, figure.axes[0]
    box, page = legend.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0
    assert box.x1 <= page.x1
    assert page.y0 <= box.y0
    # Above it the chart keeps its room.
    assert axes.get_tightbbox().y0 >= box.y1
    assert axes.get_window_extent().height > 0.5 * pictures.HEIGHT * figure.dpi


def test_what_asks_for_no_legend_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for made in (chart(line("a")), chart(line("a"), line("b"), showlegend=False), chart(line(""), line(""))):
        with monkeypatch.context() as patch:
            assert drawn(patch, made, tmp_path).legends == []
    hidden = chart(line("a", showlegend=True), line("b", showlegend=False))
    assert texts(drawn(monkeypatch, hidden, tmp_path)) == ["a"]


def test_points_may_differ() -> None:
    marker = {"color": ["#000000", "#ff0000", "#00ff00"], "symbol": ["circle", "x", "circle-open"], "size": [6, 12, 6]}
    axes = Figure().subplots()
    picture_marks.trace(axes, line("a", mode="markers", marker=marker, y=[1.0, 2.0, 3.0]))
    assert [(str(one.get_marker()), to_hex(one.get_markeredgecolor())) for one in axes.lines] == [
        *(("o", "#000000"), ("X", "#ff0000"), ("o", "#00ff00"))
    ]
    assert axes.lines[1].get_markersize() == 2 * axes.lines[0].get_markersize()


@pytest.mark.parametrize("kind", ["linear", "log"])
def test_shapes_and_notes_stand_where_plotly_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """On a logarithmic axis Plotly has a shape at its value, a note and the ends at their powers of ten."""
    here = 1 if kind == "log" else 10
    layout = {
        "yaxis": {"type": kind, "range": [0, 2] if kind == "log" else [1, 100]},
        "xaxis": {"range": [0, 60], "dtick": 20},
        "shapes": [
            {
                "type": "line",
                "x0": 15,
                "x1": 15,
                "y0": 0,
                "y1": 1,
                "yref": "paper",
                "line": {"color": "#d55e00", "dash": "dot"},
            },
            {"type": "line", "x0": 0, "x1": 60, "y0": 10, "y1": 10, "line": {"color": "#0072b2", "width": 1}},
        ],
        "annotations": [
            {"x": 15, "y": here, "text": "stopped at 84.2&nbsp;%", "showarrow": False},
            {
                "x": 0,
                "y": 1,
                "xref": "paper",
                "yref": "paper",
                "text": "corner $x$",
                "showarrow": False,
                "xanchor": "left",
            },
            {"x": 30, "y": here, "text": "there", "showarrow": False, "xshift": 50, "xanchor": "left"},
        ],
    }
    figure = drawn(monkeypatch, chart(line("a", y=[20.0, 30.0, 40.0]), **layout), tmp_path)
    axes = figure.axes[0]
    assert axes.get_xlim() == (0, 60)
    assert axes.get_ylim() == (1, 100)
    assert [tick for tick in axes.get_xticks() if 0 <= tick <= 60] == [0, 20, 40, 60]
    place = axes.transData.transform((15, 10))
    upright, level = axes.lines[-2:]
    x, y = upright.get_transform().transform(upright.get_xydata()).T
    assert x == pytest.approx([place[0]] * 2)
    assert y == pytest.approx([axes.bbox.y0, axes.bbox.y1])
    assert level.get_transform().transform(level.get_xydata())[:, 1] == pytest.approx([place[1]] * 2)
    assert upright.get_linestyle() != level.get_linestyle()
    stopped, corner, there = axes.texts
    assert [note.get_text() for note in axes.texts] == ["stopped at 84.2\xa0%", "corner $x$", "there"]
    centre = stopped.get_window_extent()
    assert ((centre.x0 + centre.x1) / 2, (centre.y0 + centre.y1) / 2) == pytest.approx(place, abs=4)
    assert corner.get_window_extent().x0 == pytest.approx(axes.bbox.x0, abs=4)
    assert there.get_window_extent().x0 > 20 + axes.transData.transform((30, 10))[0]


@pytest.mark.parametrize(
    ("labels", "turned"),
    [(["4", "8", "32"], False), (["0.0001", "0.001", "0.01"], False), (["long name " * 3] * 5, True)],
)
def test_labels_that_would_collide_are_turned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: list[str], turned: bool
) -> None:
    axis = {"tickvals": list(range(len(labels))), "ticktext": labels, "range": [-0.5, len(labels) - 0.5]}
    figure = drawn(monkeypatch, chart(line("a", x=[0, 1, 2]), xaxis=axis), tmp_path)
    ticks = figure.axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == labels
    assert {tick.get_rotation() > 0 for tick in ticks} == {turned}
    boxes = [tick.get_window_extent() for tick in ticks]
    assert turned or all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_an_unknown_mark_is_not_drawn_as_another() -> None:
    for wrong in ({"line": {"dash": "wavy"}}, {"marker": {"symbol": "hourglass"}}):
        with pytest.raises(KeyError):
            picture_marks.trace(Figure().subplots(), line("a", **wrong))


def test_both_kinds_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "</text><script>alert(1)</script>$x_"
    for layer in ("bn-relu", "evonorm-s0", hostile):
        config = TrainConfig(layer=layer, epochs=3)
        make_run(tmp_path / "runs" / f"run-{len(layer)}", config, epochs_of(config, 0.6))
    arguments = ["report", str(tmp_path / "runs"), "-o", str(tmp_path / "r.html")]
    assert cli.main([*arguments, "--png", str(tmp_path / "a"), "--svg", str(tmp_path / "b")]) == 0
    assert [Path(path).name for path in capsys.readouterr().out.split()] == [
        *("r.html", "loss.png", "accuracy.png", "loss.svg", "accuracy.svg")
    ]
    with Image.open(tmp_path / "a" / "loss.png") as picture:
        assert picture.width >= 1200
    text = (tmp_path / "b" / "loss.svg").read_text()
    assert "<script" not in text
    assert not re.search(r"<dc:date>", text)
    assert cli.main([*arguments, "--svg", str(tmp_path / "c")]) == 0
    assert (tmp_path / "c" / "loss.svg").read_text() == text
    (tmp_path / "file").write_text("")
    assert cli.main([*arguments, "--svg", str(tmp_path / "file" / "x")]) == cli.USER_ERROR
    assert "choose another --svg" in capsys.readouterr().err
