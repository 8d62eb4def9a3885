"""Any program as a trial: macros, metrics among its other output, failures, stopping, nothing left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from evonorm import cli
from evonorm.lab.errors import UserError
from evonorm.lab.sweep import journal, log, schema
from evonorm.lab.sweep.macros import expand
from evonorm.lab.sweep.program import Program
from tests.processes import PATIENCE_SECONDS, alive, until

PARAMETERS = {"lr": 1e-05, "trainer.depth": 3, "amp": True, "aug": False, "opt": {"name": "adam"}, "note": "a b"}


FLAGS = ["lr=1e-05", "trainer.depth=3", "amp=True", "aug=False", "opt={'name': 'adam'}", "note=a b"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


@pytest.mark.parametrize(
    ("macro", "words"),
    [
        ("${env}", ["/usr/bin/env"]),
        ("${interpreter}", ["python"]),
        ("${program}", ["train.py"]),
        (
            "${args}",
            [
                *("--lr=1e-05", "--trainer.depth=3", "--amp=True", "--aug=False"),
                *("--opt={'name': 'adam'}", "--note=a b"),
            ],
        ),
        (
            "${args_no_hyphens}",
            FLAGS,
        ),
        (
            "${args_no_boolean_flags}",
            ["--lr=1e-05", "--trainer.depth=3", "--amp", "--opt={'name': 'adam'}", "--note=a b"],
        ),
        ("${args_json}", [json.dumps(PARAMETERS)]),
        ("${envvar:EVONORM_TEST}", ["from the environment"]),
        ("dir=${envvar:EVONORM_TEST}/x", ["dir=from the environment/x"]),
        ("${envvar:EVONORM_NOT_SET}", ["EVONORM_NOT_SET"]),
        ("hydra.run.dir=${now:%Y}", ["hydra.run.dir=${now:%Y}"]),
        ("${oc.env:HOME}", []),  # the agent leaves out what looks like a macro of its own and is none
        ("home=${oc.env:HOME}", ["home=${oc.env:HOME}"]),
        ("${args_append_hydra}", [f"+{flag}" for flag in FLAGS]),
        ("${args_override_hydra}", [f"++{flag}" for flag in FLAGS]),
        ("${args_dict}", list(PARAMETERS)),
    ],
)
def test_macros(macro: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVONORM_TEST", "from the environment")
    assert expand([macro], "train.py", PARAMETERS, tmp_path / "args.json") == words


def test_macros_of_two_words_and_of_a_file(tmp_path: Path) -> None:
    assert expand(["${args_no_equals}"], None, {"lr": 0.1, "n": 2}, tmp_path / "a") == ["--lr", "0.1", "--n", "2"]
    (path,) = expand(["${args_json_file}"], None, PARAMETERS, tmp_path / "args.json")
    assert json.loads(Path(path).read_text()) == PARAMETERS


def test_a_script_end_to_end(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        here / "train.py",
        """
        import argparse, json, sys
        import evonorm.lab.sweep
        parser = argparse.ArgumentParser()
        parser.add_argument("--lr", type=float)
        lr = parser.parse_args().lr
        print("epoch 1 begins {not json}")
        print(json.dumps({"loss": lr + 1}))
        evonorm.lab.sweep.log(loss=lr, note="second")
        print('{"unfinished": ')
        print("to the log", file=sys.stderr)
        sys.stdout.write(json.dumps({"epoch": 2}))
        """,
    )
    write(
        here / "sweep.yaml",
        """
        program: train.py
        method: grid
        metric: {name: loss}
        parameters: {lr: {values: [0.5, 1e-5, 0.25]}}
        """,
    )
    assert cli.main(["sweep", "sweep.yaml", "--out", "out", "--workers", "2"]) == 0
    trials = journal.read_trials(here / "out")
    assert [(t.parameters["lr"], t.value, t.history) for t in trials] == [
        (lr, lr, [lr + 1, lr]) for lr in (0.5, 1e-5, 0.25)
    ]
    assert trials[0].metrics == {"loss": 0.5, "note": "second", "epoch": 2}
    text = (journal.trial_folder(here / "out", 1) / "log.txt").read_text()
    assert "train.py --lr=1e-05" in text
    assert "to the log" in text
    shown = capsys.readouterr().out
    assert "3 of 3 trials, 3 finished" in shown
    assert "best loss 1e-05, trial 1: lr=1e-05" in shown
    assert cli.main(["sweep", "best", "out", "--as-args"]) == 0
    assert capsys.readouterr().out == "--lr=1e-05\n"
    assert cli.main(["sweep", "best", "out"]) == 0
    assert json.loads(capsys.readouterr().out) == {"lr": 1e-05}
    assert cli.main(["sweep", "status", "out"]) == 0
    assert capsys.readouterr().out.startswith("3 trials: 3 finished\nbest loss 1e-05, trial 1: lr=1e-05")


def test_a_script_that_fails_and_its_exit_code(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "train.py", "import sys; print('on my way'); sys.exit(3)")
    write(here / "s.yaml", "program: train.py\nmethod: grid\nparameters: {x: {values: [1]}}")
    assert cli.main(["sweep", "s.yaml", "--out", "out"]) == cli.FAILED
    (trial,) = journal.read_trials(here / "out")
    assert (trial.status, trial.errors, trial.error) == ("failed", 2, "the program ended with exit code 3: on my way")
    assert (journal.trial_folder(here / "out", 0) / "log.txt").read_text().count("on my way") == 2
    capsys.readouterr()
    assert cli.main(["sweep", "status", "out"]) == 0
    assert (
        "trial 0 failed (the program ended with exit code 3: on my way; see out/trials/0000/log.txt): x=1"
        in capsys.readouterr().out
    )


def test_nothing_is_left_running(here: Path) -> None:
    """Not by Ctrl-C, nor by kill -9 of the driver."""
    write(
        here / "train.py",
        """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open("pids", "a") as file: file.write(f"{os.getpid()}\\n")
        time.sleep(60)
        """,
    )
    write(here / "s.yaml", "program: train.py\nmethod: grid\nparameters: {x: {values: [1, 2]}}")
    for number in (signal.SIGINT, signal.SIGKILL):
        Path("pids").write_text("")
        driver = subprocess.Popen(
            [sys.executable, "-m", "evonorm", "sweep", "s.yaml", "--out", "out", "--workers", "2"]
        )
        until(lambda: len(Path("pids").read_text().split()) == 2)
        driver.send_signal(number)
        assert driver.wait(timeout=PATIENCE_SECONDS) == (
            cli.INTERRUPTED if number == signal.SIGINT else -signal.SIGKILL
        )
        pids = [int(pid) for pid in Path("pids").read_text().split()]
        until(lambda pids=pids: not any(alive(pid) for pid in pids))
        statuses = {trial.status for trial in journal.read_trials(here / "out")}
        assert statuses == {"waiting" if number == signal.SIGINT else "running"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("program: nowhere.py", "program: there is no 'nowhere.py' here or beside the file"),
        ('command: [python, "${program}"]', "program: missing; the command needs it"),
    ],
)
def test_mistakes(here: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "s.yaml", f"{text}\nmethod: grid\nparameters: {{x: {{values: [1]}}}}")
    assert cli.main(["sweep", "s.yaml", "--out", "out"]) == cli.USER_ERROR
    assert message in capsys.readouterr().err


def test_a_program_beside_the_file_is_found(here: Path) -> None:
    (here / "deep").mkdir()
    write(here / "deep" / "train.py", "")
    sweep = schema.parse({"program": "train.py", "method": "grid", "parameters": {"x": {"values": [1]}}})
    assert Program(sweep, here / "deep").describe()["program"] == str(here / "deep" / "train.py")
    with pytest.raises(UserError, match="there is no"):
        Program(sweep, here)


def test_log_prints_json_for_any_other_reader(capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run([sys.executable, "-c", "from evonorm.lab.sweep import log; log({'a': 1}, b=2.5)"], check=True)
    assert json.loads(capfd.readouterr().out) == {"a": 1, "b": 2.5}
    assert log.__doc__
    assert os.environ.get("EVONORM_SWEEP_PARAMETERS") is None
