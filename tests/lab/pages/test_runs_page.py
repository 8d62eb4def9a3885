"""The page of plain runs: each data set's, the best first; what is set apart; and what every page's script does."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

from evonorm import cli
from evonorm.lab.analysis import plain_runs
from evonorm.lab.pages import page, runs_page
from evonorm.lab.records import export, run_files
from evonorm.lab.training.config import Seeds, TrainConfig
from tests.lab.pages.browser import tab
from tests.lab.pages.test_report import DIAGNOSIS, HOSTILE, epochs_of, make_run, text_of

BASE = TrainConfig(layer="bn-relu", epochs=3)


def of_data(folder: Path, name: str, **more: Any) -> None:
    """Puts a run on another data set."""
    content = run_files.read_json(folder / "config.json")
    dataset = content["dataset"] | {"name": name, "fingerprint": name * 2} | more
    run_files.write_json(folder / "config.json", content | {"dataset": dataset})


def several(folder: Path) -> Path:
    """Three that finished, in the order c, a, b; one diverged, one stopped above them all, one failed, one running."""
    finished = (("a", "bn-relu", 0.61, 0), ("b", "bn-relu", 0.55, 1), ("c", "evonorm-s0", 0.64, 0))
    for name, layer, accuracy, seed in finished:
        config = replace(BASE, layer=layer, groups=8, seeds=Seeds(*[seed] * 4))
        make_run(folder / name, config, epochs_of(config, accuracy))
    other = replace(BASE, layer="none", epochs=9)
    make_run(folder / "d", other, epochs_of(other, 0.4)[:1], status="diverged", diagnosis=DIAGNOSIS)
    make_run(folder / "e", other, epochs_of(other, 0.9)[:7], status="stopped")
    make_run(folder / "f", other, [], status="failed", error="the roof fell in")
    make_run(folder / "g", other, epochs_of(other, 0.3)[:2], status="running")
    return folder


def cells(html: str, table: str) -> list[list[str]]:
    body = html.split(f'id="{table}"')[1].split("</table>")[0]
    rows = re.findall(r"<tr data-status.*?</tr>", body, flags=re.S)
    return [[text_of(cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, flags=re.S)] for row in rows]


def test_the_best_first_and_the_rest_apart(tmp_path: Path) -> None:
    html = page.render(several(tmp_path))
    assert [row[-1] for row in cells(html, "data-1-ranked")] == ["c", "a", "b"]
    assert [row[:3] for row in cells(html, "data-1-ranked")] == [
        *(["evonorm-s0", "64.0", "66.0"], ["bn-relu", "61.0", "63.0"], ["bn-relu", "55.0", "57.0"])
    ]
    apart = {row[-1]: row for row in cells(html, "data-1-apart")}
    assert {name: row[3] for name, row in apart.items()} == {
        **{"d": "diverged", "e": "stopped", "f": "failed", "g": "running"}
    }
    assert apart["e"][1] == "70.0"
    assert apart["e"][4] == "7 of 9"
    assert apart["f"][1] == "–"
    text = text_of(html)
    for expected in (
        "<title>7 training runs on pictures: evonorm-s0, bn-relu, none</title>",
        "Best of 3 finished runs on pictures: evonorm-s0",
        "64.0 % in validation (66.0 % in training) after 3 epochs, seed 0.",
        "Set apart, not ranked: 1 diverged, 1 stopped, 1 running, 1 failed.",
        "had reached 70.0 % by epoch 7, above the best that finished.",
        "first non-finite forward: inception3.conv1x1.conv",
        "failed: the roof fell in",
        "a processor",
        "These runs differ in more than the layer: epochs (3, 9).",
    ):
        assert expected in (html if "<" in expected else text), expected
    assert "report" not in text_of(html.split("<footer>")[0]).lower()
    assert "84.3" not in text


def test_it_is_of_several_layers_rates_and_seeds(tmp_path: Path) -> None:
    for rate in (0.1, 0.01):
        for seed in (0, 1):
            config = replace(BASE, learning_rate=rate, seeds=Seeds(*[seed] * 4))
            make_run(tmp_path / f"{rate}-{seed}", config, epochs_of(config, 0.6 + rate + 0.02 * seed))
    (runs,) = plain_runs.read(tmp_path).rankings
    assert runs.differing == ("learning_rate",)
    assert [runs.label(record) for record in runs.ranked] == ["bn-relu, rate 0.1"] * 2 + ["bn-relu, rate 0.01"] * 2
    assert [plain_runs.seed(record) for record in runs.ranked] == ["1", "0", "1", "0"]
    text = text_of(page.render(tmp_path))
    assert "bn-relu, rate 0.1: 71.0 ± 1.4 % (n=2)." in text
    # A setting is a curve's name and colour, its seeds are one entry.
    loss, _ = runs_page.charts(tmp_path).values()
    shown = [trace for trace in loss.figure["data"] if trace["showlegend"]]
    assert [trace["name"] for trace in shown] == ["bn-relu, rate 0.1", "bn-relu, rate 0.01"]
    assert len({trace["line"]["color"] for trace in shown}) == 2


def test_all_that_differs_is_told(tmp_path: Path) -> None:
    """One run with Adam, cosine and weight decay: a name needs the optimizer alone, who compares needs all three."""
    ways: tuple[dict[str, Any], ...] = (
        *({}, {"layer": "none"}),
        {"optimizer": "adam", "schedule": "cosine", "weight_decay": 1e-4, "clip_norm": 1.0},
    )
    for place, way in enumerate(ways):
        resolved = replace(BASE, **way).resolved(precision="fp32", grouped=False, eps=1e-5)
        make_run(tmp_path / str(place), resolved, epochs_of(resolved, 0.5))
    old = run_files.read_json(tmp_path / "0" / "config.json")
    for younger in ("schedule", "weight_decay"):  # a record from before there were such settings
        del old["config"][younger]
    run_files.write_json(tmp_path / "0" / "config.json", old)
    (ranking,) = plain_runs.read(tmp_path).rankings
    assert {ranking.label(record) for record in ranking.records} == {"bn-relu, SGD", "bn-relu, Adam", "none, SGD"}
    assert ranking.differing == ("layer", "optimizer", "learning_rate", "schedule", "weight_decay", "clip_norm")
    text = text_of(page.render(tmp_path))
    assert "schedule (decay, cosine)" in text or "schedule (cosine, decay)" in text
    assert "schedule cosine, weight decay 0.0001, clip norm 1" in text


def test_one_epoch_is_a_point_in_training_too(tmp_path: Path) -> None:
    for name, epochs in (("short", 1), ("long", 3)):
        make_run(tmp_path / name, replace(BASE, learning_rate=0.1 * epochs), epochs_of(BASE, 0.5)[:epochs])
    loss, _ = runs_page.charts(tmp_path).values()
    drawn = {(len(t["x"]), t["opacity"] < 1): t["mode"] for t in loss.figure["data"]}
    assert drawn[1, True] == drawn[1, False] == drawn[3, False] == "lines+markers"
    assert drawn[3, True] == "lines"


def test_a_run_that_finished_without_a_finite_loss_is_named(tmp_path: Path) -> None:
    for name, loss in (("sound", 1.0), ("lost", float("nan"))):
        epochs = epochs_of(BASE, 0.5)
        epochs[-1]["val_loss"] = loss
        make_run(tmp_path / name, BASE, epochs)
    text = text_of(page.render(tmp_path))
    assert "The last validation loss is not finite in 1 of the finished runs: lost." in text


def test_what_follows_from_another_setting_is_not_named(tmp_path: Path) -> None:
    """Adam's rate, decay and momentum, and a layer's epsilon, tell nothing that optimizer and layer do not."""
    for layer, optimizer in (("bn-relu", "sgd"), ("evonorm-s0", "sgd"), ("evonorm-s0", "adam")):
        config = replace(BASE, layer=layer, optimizer=optimizer, norm_eps=None)
        resolved = config.resolved(precision="fp32", grouped="s0" in layer, eps=1e-3 if layer == "bn-relu" else 1e-5)
        make_run(tmp_path / f"{layer}-{optimizer}", resolved, epochs_of(resolved, 0.5))
    (runs,) = plain_runs.read(tmp_path).rankings
    labels = {runs.label(record) for record in runs.records}
    assert labels == {"bn-relu, SGD", "evonorm-s0, 32 groups, SGD", "evonorm-s0, 32 groups, Adam"}


SEEDS = (Seeds(), Seeds(3, 3, 3, 3), Seeds(1, 1, 1, 0), Seeds(4, 0, 0, 0))


@pytest.mark.parametrize("seeds", SEEDS)
def test_seeds_in_words(tmp_path: Path, seeds: Seeds) -> None:
    config = replace(BASE, seeds=seeds)
    make_run(tmp_path / "run", config, epochs_of(config, 0.5))
    expected = dict(zip(SEEDS, ("0", "3", "1 (subset 0)", "0 (model 4)"), strict=True))
    assert plain_runs.seed(run_files.read(tmp_path / "run")) == expected[seeds]


def test_data_sets_are_never_in_one_list(tmp_path: Path) -> None:
    """Digits, which any network learns, are not set above CIFAR-10."""
    made = (("a", "digits", 0.99), ("b", "cifar10", 0.6), ("c", "cifar10", 0.7), ("d", "cifar10", 0.5))
    for name, data, accuracy in made:
        make_run(tmp_path / name, BASE, epochs_of(BASE, accuracy))
        of_data(tmp_path / name, data, notice="These are not CIFAR-10." if data == "digits" else "")
    html = page.render(tmp_path)
    assert [row[-1] for row in cells(html, "data-1-ranked")] == ["c", "b", "d"]
    assert [row[-1] for row in cells(html, "data-2-ranked")] == ["a"]
    text = text_of(html)
    assert "Several data sets. Each has a list of its own" in text
    assert "Mind the data (digits). These are not CIFAR-10." in text
    assert "Best of 3 finished runs on cifar10: bn-relu, 70.0 %" in text
    assert "One finished run on digits: bn-relu, 99.0 %" in text
    assert len(runs_page.charts(tmp_path)) == 4


def test_networks_of_one_list_are_told(tmp_path: Path) -> None:
    for model in ("mini-inception", "resnet18"):
        config = replace(BASE, model=model)
        make_run(tmp_path / model, config, epochs_of(config, 0.5 + 0.01 * len(model)))
    html = page.render(tmp_path)
    assert "These runs differ in more than the layer: network (mini-inception, resnet18)." in text_of(html)
    assert [row[5] for row in cells(html, "data-1-ranked")] == ["mini-inception", "resnet18"]


def test_one_runs_own_folder(tmp_path: Path) -> None:
    make_run(tmp_path / "only", BASE, epochs_of(BASE, 0.61))
    text = text_of(page.render(tmp_path / "only"))
    assert "A training run on pictures: bn-relu" in text
    assert "One finished run on pictures: bn-relu, 61.0 % in validation" in text
    assert "report's comparison" not in text.replace("&#39;", "'")


def test_more_settings_than_can_be_told_apart(tmp_path: Path) -> None:
    for place in range(12):
        config = replace(BASE, learning_rate=0.01 * (place + 1))
        make_run(tmp_path / f"run-{place}", config, epochs_of(config, 0.5 + 0.01 * place))
    loss, _ = runs_page.charts(tmp_path).values()
    names = [trace["name"] for trace in loss.figure["data"] if trace["showlegend"]]
    assert names == [f"bn-relu, rate {0.01 * rate:g}" for rate in range(12, 12 - len(names), -1)]
    assert f"{12 - len(names)} more are in the tables alone" in text_of(page.render(tmp_path))
    assert len(cells(page.render(tmp_path), "data-1-ranked")) == 12


def test_the_pages_csv_is_that_of_export(tmp_path: Path) -> None:
    several(tmp_path)
    (address,) = re.findall(r'href="data:text/csv;charset=utf-8,([^"]*)"', page.render(tmp_path))
    ours = list(csv.DictReader(io.StringIO(unquote(address))))
    theirs = list(csv.DictReader(io.StringIO(export.read(tmp_path).csv())))
    assert sorted(ours, key=lambda row: row["run"]) == theirs
    assert list(ours[0]) == list(theirs[0])


def test_runs_lead_to_their_folders(tmp_path: Path) -> None:
    hostile = "javascript:alert(1)"
    make_run(tmp_path / "runs" / hostile, BASE, epochs_of(BASE, 0.5))
    make_run(tmp_path / "runs" / "a b#c?", BASE, epochs_of(BASE, 0.5))
    (tmp_path / "pages").mkdir()
    page.write(tmp_path / "runs", tmp_path / "pages" / "report.html")
    links = re.findall(r'<td class="text"><a href="([^"]*)">', (tmp_path / "pages" / "report.html").read_text())
    assert links == ["./../runs/a%20b%23c%3F/", "./../runs/javascript%3Aalert%281%29/"]
    assert all((tmp_path / "pages" / unquote(one)).is_dir() for one in links)


def test_hostile_names(tmp_path: Path) -> None:
    config = replace(BASE, layer=HOSTILE, model=HOSTILE)
    diagnosis = DIAGNOSIS | {"tensor": HOSTILE, "cause": HOSTILE}
    make_run(tmp_path / "<b>a<b>", config, epochs_of(config, 0.5), status="diverged", diagnosis=diagnosis)
    make_run(tmp_path / "b", config, [], status="failed", error=HOSTILE)
    make_run(tmp_path / "c", config, epochs_of(config, 0.5))
    of_data(tmp_path / "c", HOSTILE, notice=HOSTILE)
    html = page.render(tmp_path)
    for harm in (HOSTILE, "<img", "<b>a"):
        assert harm not in html
    page.write(tmp_path, tmp_path / "r.html")
    with tab(tmp_path / "r.html", "dark", 390) as opened:
        assert opened.evaluate("window.harmed") is None
        assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


SHOWN = "[...document.querySelectorAll('table.sorted tbody tr')].filter(row => !row.hidden)"
COLUMN = "[...document.querySelectorAll('#data-1-ranked tbody tr')].map(row => row.cells[{0}].textContent)"
ANCHORS = "[...document.querySelectorAll('main .anchor')]"
VISIBLE = "[...document.querySelectorAll('.chart')].map(c => c.data.map(t => [t.legendgroup, t.visible ?? true]))"


def test_what_every_pages_script_does(tmp_path: Path) -> None:
    page.write(several(tmp_path), tmp_path / "r.html")
    with tab(tmp_path / "r.html", "light", 1300) as opened:
        # Sorting, from the keyboard.
        header = "#data-1-ranked thead th:nth-child({0})"
        assert opened.get_attribute(header.format(2), "aria-sort") == "descending"
        for direction, expected in (("ascending", ["55.0", "61.0", "64.0"]), ("descending", ["64.0", "61.0", "55.0"])):
            opened.focus(f"{header.format(2)} button")
            opened.keyboard.press("Enter")
            assert opened.get_attribute(header.format(2), "aria-sort") == direction
            assert opened.evaluate(COLUMN.format(1)) == expected
        opened.click(f"{header.format(1)} button")
        assert opened.evaluate(COLUMN.format(0)) == ["bn-relu", "bn-relu", "evonorm-s0"]
        assert opened.evaluate("document.querySelectorAll('#data-1-ranked [aria-sort]').length") == 1
        # One filter for both tables.
        opened.uncheck("#data-1-statuses input[value=finished]")
        opened.wait_for_function(f"{SHOWN}.length === 4")
        opened.fill("#data-1-words", "stopped")
        opened.wait_for_function(f"{SHOWN}.length === 1")
        assert opened.text_content("#data-1-count") == "1 of 7 pass"
        # A legend's entry hides its curves in the section's other chart too.
        opened.click(".chart >> nth=0 >> .legendtoggle >> nth=0")
        opened.wait_for_function(f"{VISIBLE}.every(traces => traces.some(([_, visible]) => visible === 'legendonly'))")
        states = [dict(traces) for traces in opened.evaluate(VISIBLE)]
        assert states[0] == states[1]
        assert list(states[0].values()).count("legendonly") == 1
        # Headings have an address.
        anchors = opened.evaluate(f"{ANCHORS}.map(a => [decodeURIComponent(a.hash.slice(1)), a.ariaLabel])")
        assert ["data-1", "Link to Runs"] in anchors
        assert len({anchor for anchor, _ in anchors}) == len(anchors) >= 5
        assert opened.evaluate(f"{ANCHORS}.every(a => document.getElementById(decodeURIComponent(a.hash.slice(1))))")
        opened.focus(".anchor >> nth=0")
        opened.wait_for_function("getComputedStyle(document.activeElement).opacity === '1'")
        assert opened.evaluate("document.querySelector('section').ariaLabel") == "Runs"
        # What is taken away.
        for kind in ("PNG", "SVG"):
            with opened.expect_download() as taken:
                opened.click(f"button[aria-label='Download Loss as {kind}']")
            assert taken.value.suggested_filename == f"loss.{kind.lower()}"
            path = tmp_path / taken.value.suggested_filename
            taken.value.save_as(path)
        with Image.open(tmp_path / "loss.png") as picture:
            assert picture.width >= 1200
            assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        assert ">Loss</" in (tmp_path / "loss.svg").read_text()
        with opened.expect_download() as taken:
            opened.click("a.csv >> nth=0")
        assert taken.value.suggested_filename == "runs.csv"
        taken.value.save_as(tmp_path / "runs.csv")
        assert len(list(csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text())))) == 7


def test_downloads_are_light_where_the_screen_is_dark(tmp_path: Path) -> None:
    page.write(several(tmp_path), tmp_path / "r.html")
    with tab(tmp_path / "r.html", "dark", 1300) as opened:
        with opened.expect_download() as taken:
            opened.click("button[aria-label='Download Accuracy as PNG']")
        taken.value.save_as(tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as picture:
            assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        # The chart on the page stays as the reader has it.
        assert opened.evaluate("document.querySelector('.chart').layout.paper_bgcolor") == "rgba(0,0,0,0)"
        assert opened.evaluate("document.querySelector('.chart').layout.title?.text ?? null") is None


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(several(tmp_path)), "-o", str(tmp_path / "r.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'r.html'}\n"
    html = (tmp_path / "r.html").read_text()
    charts = [json.loads(text) for text in re.findall(r'json">(.*?)</script>', html, flags=re.S)]
    assert len(charts) == 2
