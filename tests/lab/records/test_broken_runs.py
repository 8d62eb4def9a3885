"""A run's file that is broken costs that run: whoever lists runs leaves it out, and says which and why."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evonorm import cli
from evonorm.lab.analysis import comparison, plain_runs
from evonorm.lab.errors import UserError
from evonorm.lab.jobs import campaign
from evonorm.lab.pages import page
from evonorm.lab.records import run_files
from evonorm.lab.sweep import export
from evonorm.lab.training.config import TrainConfig
from tests.lab import sweeps
from tests.lab.pages import test_architectures_page, test_batches_page, test_ladder_page
from tests.lab.pages.test_report import epochs_of, make_comparison, make_run, text_of

CONFIG = TrainConfig(layer="bn-relu", epochs=3)
# What is wrong with which file, and what is said of it.
BROKEN: list[tuple[str, str | bytes | None, str]] = [
    ("summary.json", '{"status": "fini', "summary.json is not JSON"),
    ("summary.json", b"\xff\xfe\x00", "summary.json is not JSON"),
    ("summary.json", "", "summary.json is not JSON"),
    ("summary.json", "[" * 100_000, "summary.json is not JSON"),
    ("summary.json", "[]", "summary.json must hold a JSON object, got list"),
    ("summary.json", '{"status": "won"}', '"status" must be one of running, finished'),
    ("summary.json", '{"status": ["finished"]}', '"status" must be one of'),
    ("summary.json", '{"status": "finished", "last": 5}', '"last" must be an object, got 5'),
    ("summary.json", '{"last": {"val_accuracy": "high"}}', "\"val_accuracy\" must be a number, got 'high'"),
    ("summary.json", '{"best": {"val_accuracy": true}}', '"val_accuracy" must be a number, got True'),
    ("summary.json", '{"epochs_done": 2.5}', '"epochs_done" must be a whole number'),
    ("summary.json", '{"seconds": "long"}', '"seconds" must be a number'),
    ("summary.json", '{"diagnosis": "too fast"}', '"diagnosis" must be an object'),
    ("summary.json", '{"diagnosis": {"magnitudes": [1]}}', '"magnitudes" must be a list in which each is an object'),
    ("summary.json", '{"groups_in_force": [8]}', '"groups_in_force" must be an object'),
    ("summary.json", '{"parameters": -1}', '"parameters" must be a whole number from 0 on, got -1'),
    ("summary.json", '{"seconds": 1' + "0" * 400 + "}", '"seconds" must be a number'),
    ("config.json", None, "cannot read config.json: No such file"),
    ("config.json", "null", "config.json must hold a JSON object, got NoneType"),
    ("config.json", '{"config": []}', '"config" must be an object, got []'),
    ("config.json", '{"config": {"epochs": "ten"}}', "\"epochs\" must be a whole number, got 'ten'"),
    ("config.json", '{"config": {"augment": 1}}', '"augment" must be true or false'),
    ("config.json", '{"config": {"layer": {}}}', '"layer" must be a text'),
    ("config.json", '{"config": {"seeds": {"model": "a"}}}', '"model" must be a whole number'),
    ("config.json", '{"dataset": {"classes": 10}}', '"classes" must be a list of texts'),
    ("config.json", '{"dataset": {"test_images": "all"}}', '"test_images" must be a whole number'),
    ("metrics.jsonl", '{"epoch": 1}\n{"epo\n{"epoch": 3}\n', "metrics.jsonl, line 2 is not JSON"),
    ("metrics.jsonl", b'{"epoch": 1}\n\xff\n{"epoch": 3}\n', "metrics.jsonl, line 2 is not JSON"),
    ("metrics.jsonl", '{"epoch": 1}\n[1, 2]\n', "metrics.jsonl, line 2 must hold a JSON object, got list"),
    ("metrics.jsonl", '{"val_loss": 1}\n', "metrics.jsonl, line 1: it has no epoch"),
    ("metrics.jsonl", '{"epoch": "one"}\n', 'metrics.jsonl, line 1: "epoch" must be a whole number'),
    ("metrics.jsonl", '{"epoch": 1, "train_loss": [2]}\n', 'metrics.jsonl, line 1: "train_loss" must be a number'),
    ("environment.json", "{,}", "environment.json is not JSON"),
    ("environment.json", '"fast"', "environment.json must hold a JSON object, got str"),
]
EVERY_KIND = [("summary.json", "{"), ("config.json", "[]"), ("metrics.jsonl", "1\n"), ("environment.json", b"\xff")]


def spoil(folder: Path, name: str, content: str | bytes | None) -> None:
    path = folder / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(("name", "content", "words"), BROKEN)
def test_it_is_left_out_and_told(
    tmp_path: Path, name: str, content: str | bytes | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in ("good", "bad"):
        make_run(tmp_path / run, CONFIG, epochs_of(CONFIG, 0.61))
    spoil(tmp_path / "bad", name, content)
    found = run_files.read_all(tmp_path)
    assert [record.name for record in found.records] == ["good"]
    (one,) = found.unread
    assert one.name == "bad"
    assert words in one.reason
    assert str(tmp_path) not in one.reason
    assert cli.main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 0
    text = text_of((tmp_path / "r.html").read_text()).replace("&#34;", '"').replace("&#39;", "'")
    assert "1 run is left out: what its folder holds cannot be read. bad :" in text
    assert words in text
    assert "61.0" in text
    assert cli.main(["export", str(tmp_path), "--csv", str(tmp_path / "t.csv")]) == 0
    assert (tmp_path / "t.csv").read_text().count("\n") == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.startswith("evonorm: bad cannot be read and is left out: ") for line in told] == [True, True]
    assert all(words in line for line in told)
    # Alone it is the user's to mend.
    for command in (["report"], ["export", "--csv", str(tmp_path / "u.csv")]):
        assert cli.main([command[0], str(tmp_path / "bad"), *command[1:]]) == cli.USER_ERROR
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", '{"epoch": 1, "val_accuracy": 0.5}\n{"epoch": 2, "val'),  # torn by a crash
        ("metrics.jsonl", '{"epoch": 1, "val_accuracy": 0.5}'),  # whole, without its newline
        ("metrics.jsonl", None),
        ("summary.json", None),
        ("environment.json", None),
        ("summary.json", '{"status": "finished", "last": null, "seconds": NaN, "of": "another version"}'),
    ],
)
def test_what_is_merely_not_there_is_no_fault(tmp_path: Path, name: str, content: str | None) -> None:
    make_run(tmp_path / "run", CONFIG, epochs_of(CONFIG, 0.61))
    spoil(tmp_path / "run", name, content)
    found = run_files.read_all(tmp_path)
    assert (len(found.records), found.unread) == (1, ())
    page.render(tmp_path)
    if name == "metrics.jsonl":
        assert len(found.records[0].metrics) == (content is not None)


def test_a_folder_of_nothing_else(tmp_path: Path) -> None:
    make_run(tmp_path / "bad", CONFIG, [])
    spoil(tmp_path / "bad", "summary.json", "{")
    with pytest.raises(UserError, match=r"holds no run that can be read; bad cannot be read .*: summary\.json is not"):
        plain_runs.read(tmp_path)


@pytest.mark.parametrize(("name", "content"), EVERY_KIND)
def test_the_comparison(tmp_path: Path, name: str, content: str | bytes) -> None:
    make_comparison(tmp_path)
    folder = next(tmp_path.glob("evonorm-b0-*"))
    spoil(folder, name, content)
    text = text_of(page.render(tmp_path))
    assert re.search(rf"1 run is left out.* {folder.name} : {re.escape(name)}", text)
    assert folder.name not in {record.name for record in comparison.read(tmp_path).records}


@pytest.mark.parametrize(("name", "content"), EVERY_KIND)
@pytest.mark.parametrize(
    "make",
    [
        lambda folder: test_ladder_page.made(folder, lambda *setting: 0.5),
        lambda folder: test_batches_page.made(folder, lambda *setting: 0.5),
        lambda folder: test_architectures_page.made(folder, lambda *setting: 0.5),
    ],
    ids=["ladder", "batches", "architectures"],
)
def test_the_experiments(tmp_path: Path, make: Callable[[Path], object], name: str, content: str | bytes) -> None:
    make(tmp_path)
    folder = sorted(path.parent for path in tmp_path.glob("*/config.json"))[0]
    spoil(folder, name, content)
    text = text_of(page.render(tmp_path))
    assert re.search(rf"1 run is left out.* {re.escape(folder.name)} : {re.escape(name)}", text)


@pytest.mark.parametrize(("name", "content"), EVERY_KIND)
def test_a_sweep(tmp_path: Path, name: str, content: str | bytes, capsys: pytest.CaptureFixture[str]) -> None:
    rows = sweeps.drawn(12, lambda parameters, rng: rng.random())
    for place, row in enumerate(rows[:2]):
        make_run(tmp_path / f"run-{place}", CONFIG, epochs_of(CONFIG, 0.6))
        row["run"] = f"run-{place}"
    sweeps.write(tmp_path, rows, runs={"training": {"layer": "bn-relu"}, "data": "f" * 16})
    spoil(tmp_path / "run-1", name, content)
    assert cli.main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 0
    assert re.search(rf"1 run is left out.* run-1 : {re.escape(name)}", text_of((tmp_path / "r.html").read_text()))
    table = export.read(tmp_path)
    assert [row.get("config.layer") for row in table.rows[:3]] == ["bn-relu", None, None]
    assert cli.main(["export", str(tmp_path), "--csv", str(tmp_path / "t.csv")]) == 0
    assert capsys.readouterr().err.count("evonorm: run-1 cannot be read and is left out") == 2


def test_a_trials_reports(tmp_path: Path) -> None:
    sweeps.write(tmp_path, sweeps.drawn(2, lambda parameters, rng: 1.0))
    for number, content in enumerate(('{"loss": 1}\n{"loss": 2}\n', '{"loss": 1}\n{"lo\n{"loss": 2}\n')):
        (tmp_path / "trials" / f"{number:04}").mkdir(parents=True)
        (tmp_path / "trials" / f"{number:04}" / "metrics.jsonl").write_text(content)
    table = export.read(tmp_path, metrics=True)
    assert [(row["trial"], row["loss"]) for row in table.rows] == [(0, 1.0), (0, 2.0)]
    assert [one.name for one in table.unread] == ["trial 1"]


def test_a_campaign_goes_on(tmp_path: Path) -> None:
    make_run(tmp_path / "good", CONFIG, epochs_of(CONFIG, 0.6))
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    spoil(tmp_path / "bad", "summary.json", "{")
    planned = [campaign.PlannedRun(name, CONFIG) for name in ("good", "bad")]
    for one in planned:
        campaign._look(one, tmp_path)
    assert [one.status for one in planned] == ["finished", "waiting"]


def test_hostile_words_of_a_broken_run(tmp_path: Path) -> None:
    hostile = "<img src=x onerror='window.harmed = true'>"
    make_run(tmp_path / "good", CONFIG, epochs_of(CONFIG, 0.6))
    make_run(tmp_path / hostile, CONFIG, epochs_of(CONFIG, 0.6))
    spoil(tmp_path / hostile, "summary.json", json.dumps({"status": hostile}))
    html = page.render(tmp_path)
    assert "<img" not in html
    assert "&lt;img src=x" in html
