"""The comparison's page says what its runs can carry: some did not finish, few seeds, other data; answers first."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evonorm.lab.analysis import answer, claims, outcomes, recorded, tables
from evonorm.lab.analysis import verdicts as verdicts_of
from evonorm.lab.analysis.comparison import Comparison, read
from evonorm.lab.analysis.conditions import conditions
from evonorm.lab.analysis.verdicts import Finding
from evonorm.lab.experiments.report import EXPERIMENT
from evonorm.lab.pages import charts, overview, page
from evonorm.lab.pages.charts import Curve
from evonorm.lab.records import run_files
from evonorm.lab.training.tasks import CLASSIFICATION
from tests.lab.pages import browser
from tests.lab.pages.test_report import DIAGNOSIS, make_comparison, text_of, verdicts

SEEDS = (0, 1, 2, 3)
METRICS = {metric.name: metric for metric in CLASSIFICATION.metrics}


def cut(runs: Path, id: str, variant: str, seed: int, status: str, epochs: int = 0) -> None:
    """Ends a run of the comparison after so many epochs in this state; `gone`: its folder is taken away."""
    (listing,) = runs.glob("comparison-*.json")
    entries = run_files.read_json(listing)["entries"]
    (name,) = {e["run"] for e in entries if (e["experiment"], e["variant"], e["seed"]) == (id, variant, seed)}
    folder = runs / name
    if status == "gone":
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        return
    kept = list(run_files.read_metrics(folder))[:epochs]
    run_files.rewrite_metrics(folder, kept)
    summary = run_files.read_json(folder / "summary.json") | {
        "status": status,
        "epochs_done": epochs,
        "last": kept[-1] if kept else None,
    }
    summary |= (
        {"diagnosis": DIAGNOSIS | {"epoch": epochs + 1, "step": 391 * epochs + 49}} if status == "diverged" else {}
    )
    run_files.write_json(folder / "summary.json", summary)


def finding(found: Comparison, anchor: str, place: int) -> Finding:
    (section,) = (section for section in claims.sections(found) if section.anchor == anchor)
    return section.findings[place]


def headline(found: Comparison) -> str:
    return " ".join(answer.sentences(found, claims.sections(found)))


@pytest.mark.parametrize(
    ("status", "epochs", "told"),
    [
        ("stopped", 46, "s0-g16-aug (stopped after 46 of 60 epochs, at 53.7 %)"),
        ("stopped", 0, "s0-g16-aug (stopped after 0 of 60 epochs)"),
        ("running", 5, "s0-g16-aug (running after 5 of 60 epochs, at 5.8 %)"),
        ("failed", 1, "s0-g16-aug (failed after 1 of 60 epochs, at 1.2 %)"),
        ("gone", 0, "s0-g16-aug (not run)"),
    ],
)
def test_a_claim_whose_run_has_not_ended_is_open(tmp_path: Path, status: str, epochs: int, told: str) -> None:
    make_comparison(tmp_path, lambda id, v, s: 0.8 if id.startswith("bn") else 0.7)
    assert verdicts(tmp_path)["conclusion"][:2] == ["a lead: holds", "a lead: holds"]
    cut(tmp_path, "s0-g16-aug", "intended", 0, status, epochs)
    found = read(tmp_path)
    assert verdicts(tmp_path)["conclusion"][:2] == ["a lead: holds", "open"]
    assert finding(found, "conclusion", 1).waiting == told
    assert told in headline(found)
    # Of a run that has not ended nothing is in a mean; the margin is that of the three that were compared.
    assert "for all 3 together" in finding(found, "conclusion", 1).text
    assert "for all 4 together" in finding(found, "conclusion", 0).text


def test_a_baseline_that_was_stopped_leaves_its_claims_open(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    cut(tmp_path, "bn-relu-sgd", "intended", 0, "stopped", 30)
    found = verdicts(tmp_path)
    assert found["bn-sgd"] == ["open"]
    assert (found["b0"][0], found["s0"][0], found["conclusion"][0]) == ("open", "open", "open")
    assert found["conclusion"][1] == "within noise"
    assert finding(read(tmp_path), "bn-sgd", 0).waiting == "bn-relu-sgd (stopped after 30 of 60 epochs, at 35.0 %)"


def test_what_was_not_asked_for_has_its_variant_and_its_word(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    cut(tmp_path, "b0", "intended", 0, "stopped", 30)
    (listing,) = tmp_path.glob("comparison-*.json")
    content = run_files.read_json(listing)
    content["entries"] = [e for e in content["entries"] if (e["experiment"], e["variant"]) != ("b0", "published")]
    run_files.write_json(listing, content)
    found = read(tmp_path)
    told = verdicts_of.unended([found.cell("b0", "published"), found.cell("b0", "intended")])
    assert told.startswith("b0 published (not asked for); b0 intended (stopped after 30 of 60 epochs, at ")
    assert Finding("", "open", "", waiting=told).still_open.startswith(
        "Open, for not every run was asked for and has ended"
    )
    alone = verdicts_of.unended([found.cell("b0", "intended")])
    assert alone.startswith("b0 (stopped after 30")
    assert Finding("", "open", "", waiting=alone).still_open == f"Open, for not every run has ended: {alone}."


def test_all_stopped(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    for name in {record.name for record in read(tmp_path).records}:
        summary = run_files.read_json(tmp_path / name / "summary.json")
        run_files.write_json(tmp_path / name / "summary.json", summary | {"status": "stopped"})
    told = {verdict for found in verdicts(tmp_path).values() for verdict in found}
    assert told == {"open", "not examined"}  # the sweep
    assert "14 stopped" in headline(read(tmp_path))
    assert page.render(tmp_path)


@pytest.mark.parametrize("lost_seed", SEEDS)
def test_three_finished_and_one_diverged(tmp_path: Path, lost_seed: int) -> None:
    """A mean of three and a rate of one in four, in answer, finding, table, legend and first chart."""
    layers = {"bn-relu-sgd": 0.8, "b0": 0.85}
    make_comparison(tmp_path, lambda id, v, s: layers.get(id, 0.7) + 0.001 * s, seeds=SEEDS)
    cut(tmp_path, "b0", "published", lost_seed, "diverged")
    found = read(tmp_path)
    told = finding(found, "conclusion", 2).answer
    assert "the identity: 1 of 4 (95 %: 5 to 70 %) diverged" in told
    assert told in headline(found)
    assert "n = 3" in told
    html = page.render(tmp_path)
    text = text_of(html)
    assert f"diverged 1 of 4: at step 49, in epoch 1 of 60 (seed {lost_seed})" in text
    assert "rate of divergence 5 to 70 % at 95 %" in text
    assert "(n=3)" in text
    figures = [json.loads(figure) for figure in re.findall(r'json">(.*?)</script>', html, flags=re.S)]
    entries = [t for f in figures for t in f["data"] if t.get("name", "").startswith("identity (published): ")]
    assert {entry["name"] for entry in entries if entry["showlegend"]} == {
        "identity (published): 3 finished, 1 diverged"
    }
    # The legend is that of a member with a line.
    assert all(entry["x"] for entry in entries if entry["showlegend"])
    first = overview.chart(found)
    assert first is not None
    (row,) = (row for row in first.rows if row[0] == "identity")
    assert row[1].count(",") == 2
    assert row[3] == "diverged at step 49, in epoch 1 of 60"


def test_the_first_charts_table_has_what_the_report_recorded_nan_too(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    (listing,) = tmp_path.glob("comparison-*.json")
    content = run_files.read_json(listing)
    content["dataset"]["name"] = "cifar10"
    run_files.write_json(listing, content)
    first = overview.chart(read(tmp_path))
    assert first is not None
    told = {row[0]: row[-1] for row in first.rows}
    assert told["BN-ReLU"] == "84.3"
    assert (told["EvoNorm-S0 g32"], told["EvoNorm-B0, aug."], told["EvoNorm-S0 g16, aug."]) == ("NaN", "NaN", "NaN")
    assert (told["EvoNorm-B0"], told["identity"], told["identity, aug."]) == ("75.7", "–", "–")


def test_five_seeds_are_paired_and_say_so(tmp_path: Path) -> None:
    apart = {0: 0.031, 1: 0.029, 2: 0.03, 3: 0.033, 4: 0.027}
    noise = {0: -0.02, 1: 0.0, 2: 0.02, 3: 0.01, 4: -0.01}
    make_comparison(
        tmp_path,
        lambda id, v, s: 0.8 + noise[s] + (0 if id.startswith("bn") or v == "published" else apart[s]),
        seeds=tuple(apart),
    )
    found = read(tmp_path)
    assert finding(found, "b0", 0).answer == "EvoNorm-B0 is 3.0 points above BN-ReLU, n = 5: clear at 95 %."
    assert finding(found, "b0", 0).verdict == "does not hold"
    assert "one seed" not in headline(found)


def test_a_layer_that_diverged_in_every_run_has_no_accuracy_and_no_dot(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    cut(tmp_path, "b0", "intended", 0, "diverged")
    found = read(tmp_path)
    assert finding(found, "b0", 0).answer == "EvoNorm-B0: 1 of 1 (95 %: 21 to 100 %) diverged."
    first = overview.chart(found)
    assert first is not None
    (row,) = (row for row in first.rows if row[0] == "EvoNorm-B0")
    assert row[1:4] == ("–", "–", "diverged at step 49, in epoch 1 of 60")


@pytest.mark.parametrize(("epochs", "at"), [(0, 49 / 391), (1, 1 + 49 / 391), (30, 30 + 49 / 391)])
@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_a_diverged_run_is_marked_at_its_step_and_at_no_height(
    tmp_path: Path, quantity: str, epochs: int, at: float
) -> None:
    make_comparison(tmp_path)
    cut(tmp_path, "b0", "intended", 0, "diverged", epochs)
    (record,) = read(tmp_path).cell("b0", "intended").records
    chart = charts.curves([Curve("b0", record)], METRICS[quantity])
    (line,), (cross,) = chart.figure["layout"]["shapes"], chart.figure["layout"]["annotations"]
    assert (line["x0"], line["x1"], cross["x"]) == (pytest.approx(at), pytest.approx(at), pytest.approx(at))
    assert (line["yref"], cross["yref"], cross["y"]) == ("paper", "paper", 0)
    measured = [value for trace in chart.figure["data"] for value in trace["y"] if value is not None]
    assert len(measured) == 2 * epochs
    assert chart.rows[-1] == ("b0", f"{at:.4g}", "diverged", outcomes.end(record))
    (entry,) = (trace["name"] for trace in chart.figure["data"] if trace["showlegend"])
    assert entry == f"b0: diverged at step {391 * epochs + 49:,}, in epoch {epochs + 1} of 60"
    if not epochs:
        assert chart.figure["layout"]["yaxis"]["tickvals"] == []  # nothing was measured: no heights are told


def test_runs_that_diverged_near_one_step_have_a_cross_each(tmp_path: Path) -> None:
    """At the step of each, none upon another: those of one step stand above one another, a later one on the axis."""
    make_comparison(tmp_path)
    cut(tmp_path, "b0", "intended", 0, "diverged", 30)
    (record,) = read(tmp_path).cell("b0", "intended").records
    later = replace(record, summary=record.summary | {"diagnosis": DIAGNOSIS | {"epoch": 41, "step": 391 * 40 + 49}})
    shown = [Curve("a", record), Curve("b", record), Curve("c", record), Curve("d", later)]
    chart = charts.curves(shown, METRICS["loss"])
    crosses = chart.figure["layout"]["annotations"]
    assert [cross["x"] for cross in crosses] == pytest.approx([30 + 49 / 391] * 3 + [40 + 49 / 391])
    assert [cross.get("yshift", 0) for cross in crosses] == [0, charts.CROSS_HEIGHT, 2 * charts.CROSS_HEIGHT, 0]
    assert [cross["hovertext"][0] for cross in crosses] == ["a", "b", "c", "d"]
    assert "one above another" in chart.key
    assert "one above another" not in charts.curves(shown[2:], METRICS["loss"]).key


def test_a_step_that_is_not_known(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    cut(tmp_path, "b0", "intended", 0, "diverged", 2)
    (record,) = read(tmp_path).cell("b0", "intended").records
    record.summary["diagnosis"] = None
    assert outcomes.diverged_at(record) == 3
    assert outcomes.end(record) == "diverged in epoch 3 of 60"


def test_a_stopped_curve_is_marked_and_every_chart_spans_the_planned_epochs(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    for id, epochs in (("s0-g8-aug", 27), ("s0-g16-aug", 46), ("s0-g32-aug", 5)):
        cut(tmp_path, id, "intended", 0, "stopped", epochs)
    html = page.render(tmp_path)
    figures = [json.loads(figure) for figure in re.findall(r'json">(.*?)</script>', html, flags=re.S)]
    curves = [figure for figure in figures if figure["layout"]["xaxis"]["title"]["text"] == "epoch"]
    assert {tuple(figure["layout"]["xaxis"]["range"]) for figure in curves} == {(0, 60 * 1.02)}
    ends = [t for t in curves[-1]["data"] if t.get("marker", {}).get("symbol") == "diamond-open"]
    assert sorted(trace["x"][0] for trace in ends) == [5, 27, 46]
    assert "stopped 1 of 1: after 27 of 60 epochs, at 31.5 %" in text_of(html)
    assert "s0-g8-aug intended: stopped after 27 of 60 epochs" in html


def test_groups_are_told_apart_by_dash_and_marker(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    found = read(tmp_path)
    ids = ("s0-g8", "s0-g16", "s0-g32")
    drawn = charts.curves([Curve(id, found.cell(id, "intended").records[0]) for id in ids], METRICS["loss"]).figure[
        "data"
    ]
    looks = [(t["line"]["dash"], t["marker"]["symbol"]) for t in drawn if t["showlegend"]]
    assert len({dash for dash, _ in looks}) == len({symbol for _, symbol in looks}) == 3
    first = overview.chart(found)
    assert first is not None
    symbols = [
        t["marker"]["symbol"] for t in first.figure["data"] if t["marker"]["color"] == charts.COLOURS["evonorm-s0"]
    ]
    assert symbols[:3] == [symbol for _, symbol in looks]


@pytest.mark.parametrize(
    ("dataset", "comparable"),
    [
        ({"name": "cifar10", "classes": list("abcdefghij"), "notice": ""}, True),
        ({"name": "my.zip", "classes": list(recorded.CLASSES)}, True),
        ({"name": "my.zip", "classes": [name.upper() for name in reversed(recorded.CLASSES)]}, True),
        ({"name": "digits", "classes": list("0123456789"), "notice": ""}, False),
        ({"name": "digits", "classes": list("0123456789"), "notice": "not CIFAR-10"}, False),
        ({"name": "my.zip", "classes": list(recorded.CLASSES), "notice": "10 images were resized"}, False),
        ({"name": "some", "classes": list(recorded.CLASSES)[:9]}, False),
        ({}, False),
    ],
)
def test_which_data_are_the_reports(dataset: dict[str, Any], comparable: bool) -> None:
    assert recorded.is_cifar10(dataset) == comparable


@pytest.mark.parametrize("notice", ["", "These are scikit-learn's handwritten digits, not CIFAR-10: no network."])
def test_other_data_stand_beside_no_recorded_number(tmp_path: Path, notice: str) -> None:
    make_comparison(tmp_path, lambda id, v, s: 0.3, classes=tuple("0123456789"), notice=notice)
    html = page.render(tmp_path)
    text = text_of(html)
    assert "on other data" in text
    for number in ("80.9", "84.0", "84.3", "82.4", "75.7", "76.0", "74.8", "NaN loss"):
        assert number not in text, number
    assert "recorded by the report" not in html
    first = overview.chart(read(tmp_path))
    assert first is not None
    assert {row[-1] for row in first.rows} == {"–"}
    # It is said before any number.
    assert text.index("Mind the data.") < text.index("Validation accuracy after")


def test_how_near_the_recorded_values(tmp_path: Path) -> None:
    values = {"bn-relu-sgd": 0.798, "bn-relu-adam": 0.791, "b0": None}
    make_comparison(tmp_path, lambda id, v, s: values.get(id, 0.7))
    near = {row.experiment: row for row in recorded.nearness(read(tmp_path))}
    assert (near["bn-relu-sgd"].recorded, near["bn-relu-sgd"].here, near["bn-relu-sgd"].points) == (
        "84.3",
        "79.8",
        "−4.5",
    )
    assert near["bn-relu-adam"].points == "−1.8 and −4.9"
    assert near["s0-g32"].recorded == "NaN"
    assert near["s0-g32"].points == "–"
    text = text_of(page.render(tmp_path))
    assert "Why not nearer was not measured. What is known to differ:" in text
    assert "the images come from pictures, not from CIFAR-10's own archive" in text.replace("&#39;", "'")
    assert "torch 2.14.1 here" in text
    assert "one seed here" in text


def test_the_answer_comes_first_and_the_conditions_after_the_table(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    text = text_of(page.render(tmp_path))
    order = [
        "EvoNorm-B0 is level with BN-ReLU, one seed: within noise.",
        "BN-ReLU and the EvoNorms",
        "experiment recorded by",
        "How near",
        "Conditions data",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    conditions = text[places[-1] :]
    assert "compiled not recorded" in conditions
    assert "commit not recorded" in conditions
    assert "seeds 0 in every entry" in conditions


def test_seeds_by_entry_and_what_is_compiled(tmp_path: Path) -> None:
    make_comparison(tmp_path, seeds=(0, 1))
    (listing,) = tmp_path.glob("comparison-*.json")
    content = run_files.read_json(listing)
    content["entries"] = [e for e in content["entries"] if e["seed"] == 0 or e["experiment"] in ("b0", "bn-relu-sgd")]
    run_files.write_json(listing, content)
    for place in tmp_path.glob("*/environment.json"):
        run_files.write_json(place, run_files.read_json(place) | {"compiled": True})
    found = read(tmp_path)
    assert dict(conditions(found.records))["compiled"] == "yes"
    assert "0, 1: bn-relu-sgd (published), bn-relu-sgd (intended), b0 (published), b0 (intended)" in tables.seeds(found)


def test_identities_of_other_seeds_beside_the_list_are_counted(tmp_path: Path) -> None:
    make_comparison(tmp_path, seeds=SEEDS)
    (listing,) = tmp_path.glob("comparison-*.json")
    content = run_files.read_json(listing)
    cut(tmp_path, "b0", "published", 0, "diverged")
    cut(tmp_path, "b0", "published", 3, "stopped", 46)
    run_files.write_json(listing, content | {"entries": [e for e in content["entries"] if e["seed"] == 0]})
    told = finding(read(tmp_path), "conclusion", 2)
    assert (
        "3 of other seeds that this folder holds beside (2 finished, 1 stopped): 1 of 4 diverged so far." in told.answer
    )


def test_a_short_budget_still_says_which_runs_have_not_ended(tmp_path: Path) -> None:
    make_comparison(tmp_path, budget=EXPERIMENT.budget("hour"))
    cut(tmp_path, "s0-g8-aug", "intended", 0, "stopped", 1)
    told = finding(read(tmp_path), "conclusion", 1)
    assert told.verdict == "too little budget to tell"
    assert told.waiting.startswith("s0-g8-aug (stopped after 1 of 3 epochs, at ")
    assert "one seed: too little training to tell." in headline(read(tmp_path))
    assert "lead" not in headline(read(tmp_path))


def test_the_answers_need_no_scrolling_sideways(tmp_path: Path) -> None:
    # Several seeds, some of which did not finish: what makes a cell wide.
    make_comparison(tmp_path, lambda id, v, s: 0.7 + 0.03 * s, seeds=SEEDS)
    cut(tmp_path, "s0-g32-aug", "intended", 1, "stopped", 46)
    cut(tmp_path, "b0", "published", 0, "diverged")
    page.write(tmp_path, tmp_path / "report.html")
    with browser.started() as chromium:
        for scheme, width in (("light", 390), ("dark", 390), ("light", 1300)):
            with browser.shown(chromium, tmp_path / "report.html", scheme, width) as tab:
                hidden = tab.evaluate(
                    """[...document.querySelectorAll('.answers')].filter(table =>
                        table.scrollWidth > table.parentElement.clientWidth
                        || [...table.querySelectorAll('td')].some(c => c.getBoundingClientRect().right > innerWidth)
                    ).length"""
                )
                assert tab.evaluate("document.querySelectorAll('.answers').length") == 2
                assert hidden == 0
                # The first chart is above the table, and every row of it has its name.
                first = tab.locator(".chart").first
                assert first.bounding_box()["y"] < tab.locator("#table").bounding_box()["y"]
                assert first.locator(".ytick").count() == 12
