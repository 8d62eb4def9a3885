"""An experiment and a layer of the user's own, from a file to the page."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from evonorm import cli
from evonorm.lab.experiments import catalogue
from evonorm.lab.records import run_files
from evonorm.layers import table

EXAMPLES = Path(__file__).parents[3] / "examples"
NAMED = "from evonorm.lab.experiments.report import EXPERIMENT; from dataclasses import replace; "


def test_a_layer_and_an_experiment_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = str(EXAMPLES / "layer_experiment.py"), tmp_path / "out"
    arguments = ["reproduce", "--experiment", file, "--data", "digits", "--groups-of", "8", "--seeds", "0"]
    with mock.patch.dict(table._ROWS):
        assert cli.main([*arguments, "--workers", "1", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"page: {out / 'own-layer.html'}" in shown
    page = (out / "own-layer.html").read_text(encoding="utf-8")
    assert "EvoNorm-S0 with and without the mean" in page
    assert "Which layer is best at groups 8?" in page
    runs = run_files.read_all(out).records
    assert {run.config["layer"]: run.config["formula"] for run in runs} == {
        "evonorm-s0": None,
        "rms-s0": "x * sigmoid(v * x) / rms_group * weight + bias; v=1.0",
    }
    # In another process, which knows neither: the listing says enough.
    assert "rms-s0" not in table.names()
    assert cli.main(["report", str(out), "-o", str(tmp_path / "page.html")]) == 0
    again = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Which layer is best at groups 8?" in again
    assert cli.main(["export", str(out), "--csv", str(tmp_path / "runs.csv")]) == 0
    assert "own-layer rms-s0 8" in (tmp_path / "runs.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["dropout_experiment.py", "layer_experiment.py"])
def test_the_examples_are_experiments(name: str) -> None:
    with mock.patch.dict(table._ROWS):
        experiment = catalogue.find(str(EXAMPLES / name))
        assert len(list(experiment.cells())) == 2 * 2 * 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no file mine.py; an experiment of your own is a Python file"),
        ("x = 1", "must define one Experiment, got 0"),
        ("raise RuntimeError('the roof fell in')", "mine.py could not be run: RuntimeError: the roof fell in"),
        ("def", "mine.py could not be run: "),
        (NAMED + "A = replace(EXPERIMENT, title='mine')", "an experiment is called 'report' already"),
        (NAMED + "A = replace(EXPERIMENT, name='a'); B = replace(A, name='b')", "must define one Experiment, got 2"),
    ],
)
def test_a_file_that_is_none(
    content: str | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("mine.py").write_text(content)
    assert cli.main(["reproduce", "--experiment", "mine.py", "--data", "digits"]) == cli.USER_ERROR
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
