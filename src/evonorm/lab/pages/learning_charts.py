"""Learning curves of a sweep's trials as Plotly figures: few traces through many trials, a colour a fifth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evonorm.lab.analysis import sweep_words
from evonorm.lab.analysis.swept import Swept, number
from evonorm.lab.pages.charts import Chart
from evonorm.lab.pages.parallel import FIFTHS, MANY, NO_VALUE_COLOUR, fifths
from evonorm.lab.pages.sweep_charts import MOST_TICKS, plain_layout, short
from evonorm.lab.records.run_files import Record

# Points of a trial by where they stand.
Line = Sequence[tuple[float, float]]


def learning(swept: Swept, made: Sequence[Record]) -> list[Chart]:
    """The metric against report, and where that is of training images, validation against epoch too.

    None of them where no trial has two points. made: the runs of the trials.
    """
    charts = []
    if swept.metric is not None:
        lines = {
            place: [(float(report), value) for report, value in enumerate(trial.history, 1)]
            for place, trial in enumerate(swept.trials)
        }
        charts.append(_chart(swept, lines, swept.metric.name, "epoch" if made else "report"))
        ours = sweep_words.task(swept).aliases.get(swept.metric.name, swept.metric.name)
        if made and ours.startswith("train_"):
            other = f"val_{ours.removeprefix('train_')}"
            charts.append(_chart(swept, _of_runs(swept, made, other), other, "epoch"))
    return [chart for chart in charts if chart is not None]


def _of_runs(swept: Swept, made: Sequence[Record], key: str) -> dict[int, Line]:
    by_name = {record.name: record for record in made}
    found: dict[int, Line] = {}
    for place, trial in enumerate(swept.trials):
        if trial.run in by_name:
            epochs = by_name[trial.run].metrics
            found[place] = [(float(e["epoch"]), float(e[key])) for e in epochs if e.get(key) is not None]
    return found


def _chart(swept: Swept, lines: Mapping[int, Line], name: str, x: str) -> Chart | None:
    if all(len(line) < 2 for line in lines.values()):
        return None
    own = fifths(swept)
    longest = max(at for line in lines.values() for at, _ in line)
    traces = []
    for fifth, colour in ((None, NO_VALUE_COLOUR), *enumerate(FIFTHS)):
        places = [place for place in lines if own[place] == fifth and lines[place]]
        if places:
            traces.append(_trace(swept, {place: lines[place] for place in places}, name, x, colour))
    across = {"title": {"text": x}, "rangemode": "tozero", **({"dtick": 1} if longest <= MOST_TICKS else {})}
    layout = plain_layout(across, {"title": {"text": short(name)}})
    rows = tuple(
        (str(swept.trials[place].number), str(len(line)), *(number(value) for value in (line[0][1], line[-1][1])))
        for place, line in lines.items()
        if line
    )
    header = ("trial", f"{x}s", f"first {name}", f"last {name}")
    return Chart(f"{name} against {x}", "a line a trial", {"data": traces, "layout": layout}, header, rows)


def _trace(swept: Swept, lines: Mapping[int, Line], name: str, x: str, colour: str) -> dict[str, Any]:
    xs: list[float | None] = []
    ys: list[float | None] = []
    numbers = []
    for place, line in lines.items():
        # A gap ends each trial's line.
        xs += [*(at for at, _ in line), None]
        ys += [*(value for _, value in line), None]
        numbers += [swept.trials[place].number] * (len(line) + 1)
    width = 0.8 if len(swept.trials) > MANY else 1.6
    return {
        **{"type": "scatter", "mode": "lines+markers", "name": "trials", "meta": {"lines": True}, "opacity": 0.8},
        **{"x": xs, "y": ys, "customdata": numbers, "line": {"color": colour, "width": width}},
        "marker": {"size": 3, "color": colour},
        "hovertemplate": f"trial %{{customdata}}, {x} %{{x}}: {short(name)} %{{y:.4g}}<extra></extra>",
    }
