"""`make gpu` without a GPU: the rehearsal, what it refuses, and what it has written when it is stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import gpu, outcomes


def steps(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())["steps"]


def test_the_rehearsal_takes_a_step_of_every_part(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps({"steps": {"tests/large": {"status": "finished"}}}))
    assert gpu.main(["--device", "cpu", "--out", str(file), "--for", "9m", "--commit", "abc"]) == 0
    found = steps(file)
    assert found.pop("tests/large") == {"status": "finished"}  # of another time
    assert {name.partition("/")[0] for name in found} == set(gpu.PARTS)
    for name, step in found.items():
        assert step["status"] == "finished"
        assert {"device", "torch", "python", "commit", "timm"} <= step["conditions"].keys()
        if name in gpu.TESTS:
            assert (step["passed"] > 0 or step["skipped"] > 0, step["failed"], step["failures"]) == (True, 0, [])
        elif name in gpu.RUNS:
            assert all(row["median"] > 0 and not row["trouble"] for row in step["rows"])
        else:
            assert [row["implementation"] for row in step["rows"]][-1] == "copy"
            assert all(row["status"] == "measured" for row in step["rows"] if row["variant"] == "torch")
    assert list(tmp_path.iterdir()) == [file]


def test_a_machine_without_a_gpu_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == gpu.USER_ERROR
    assert "torch sees no CUDA device here; take --device cpu" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--only", "tests/nothing"],
            "--only tests/nothing: there is no such part or step; there are tests, train, bench",
        ),
        (["--for", "9"], "--for takes a time as 90s, 9m or 1.5h: got '9'"),
        (["--out", "nowhere/gpu.json"], "there is no folder nowhere"),
    ],
)
def test_mistakes(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cpu", *arguments]) == gpu.USER_ERROR
    assert said in capsys.readouterr().err


def test_every_step_names_files_that_are_there_and_every_file_of_the_layers_is_taken() -> None:
    named = {word.partition("=")[2] or word for words in gpu.TESTS.values() for word in words if "/" in word}
    assert all((gpu.ROOT / name).exists() for name in named)
    assert set(gpu.ORDER) <= {*gpu.TESTS, *gpu.RUNS, *gpu.BENCHES}
    assert set(gpu.REHEARSED_RUNS) <= set(gpu.RUNS)
    assert set(gpu.REHEARSED_TESTS) <= set(gpu.TESTS)
    assert set(gpu.REHEARSED_BENCHES) <= set(gpu.BENCHES)
    assert all(options.device == "cuda" for options in gpu.BENCHES.values())


@pytest.mark.parametrize("limit", ["--for", "--each"])
def test_what_was_done_is_written_when_the_time_is_over(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = tmp_path / "test_slow.py"
    tests.write_text(
        "import time\ndef test_quick(): pass\ndef test_wrong(): assert 1 == 2\ndef test_slow(): time.sleep(1e4)\n"
    )
    slow = (str(tests), "-c", os.devnull, "--rootdir", str(tmp_path))
    monkeypatch.setattr(gpu, "REHEARSED_TESTS", {"tests/layers": slow, "train/tests": (*slow, "-k", "quick")})
    monkeypatch.setattr(gpu, "REHEARSED_RUNS", {})
    monkeypatch.setattr(gpu, "WRITTEN_EVERY_SECONDS", 0.2)
    file = tmp_path / "gpu.json"
    # The time passes when the slow test has begun, whatever the machine's pace.
    monkeypatch.setattr(gpu.time, "monotonic", lambda: 1000.0 if len(done(file)) == 2 else 0.0)
    arguments = ["--device", "cpu", "--only", "tests", "train", "--out", str(file), limit, "9m"]
    assert gpu.main(arguments) == gpu.TIME_OVER
    found = steps(file)["tests/layers"]
    assert (found["status"], found["passed"], found["failed"]) == ("the time was over", 1, 1)
    (failure,) = found["failures"]
    assert failure["test"].endswith("test_slow.py::test_wrong")
    assert failure["message"].startswith("assert 1 == 2")
    assert ("train/tests" in steps(file)) == (limit == "--each")


def done(file: Path) -> list[str]:
    """The outcomes written so far."""
    if not file.exists():
        return []
    step = steps(file)["tests/layers"]
    return step["passed"] * ["passed"] + step["failed"] * ["failed"]


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_outcomes_of_every_kind(tmp_path: Path, workers: list[str]) -> None:
    """With workers, one that lost its GPU is replaced: the tests after it are not its victims."""
    if workers:
        pytest.importorskip("xdist")
    (tmp_path / "test_kinds.py").write_text(
        "import pytest\n"
        "lost = False\n"
        "@pytest.fixture\ndef broken(): raise OSError('no fixture')\n"
        "def test_fine(): pass\n"
        "@pytest.mark.skip(reason='not today')\ndef test_skipped(): pass\n"
        "def test_fixture(broken): pass\n"
        "def test_lost():\n global lost; lost = True; raise RuntimeError('CUDA error: an illegal memory access')\n"
        "@pytest.mark.parametrize('number', range(8))\ndef test_later(number): assert not lost\n"
    )
    (tmp_path / "test_unreadable.py").write_text("import nothing_of_this_name\n")
    file = tmp_path / "lines"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {outcomes.PLACE: str(file), "PYTHONPATH": os.pathsep.join([str(gpu.ROOT), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.outcomes", "-c", os.devnull, str(tmp_path)]
    command += ["--rootdir", str(tmp_path), "--continue-on-collection-errors", *workers]
    subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    found = [json.loads(line) for line in file.read_text().splitlines()]
    told = {line["test"].rpartition("::")[2]: (line["outcome"], line["message"]) for line in found}
    assert told["test_fine"] == ("passed", "")
    assert told["test_skipped"] == ("skipped", "not today")
    assert told["test_fixture"] == ("failed", "OSError: no fixture")
    assert "nothing_of_this_name" in told["test_unreadable.py"][1]
    assert any("illegal memory access" in line["message"] for line in found if "test_lost" in line["test"])
    if workers:
        assert [told[f"test_later[{number}]"][0] for number in range(8)] == 8 * ["passed"]


# What the README's list of a bare machine leaves out, of all that the environment here has.
NOT_THERE = (
    "platformdirs",
    "pooch",
    "plotly",
    "jsonargparse",
    "yaml",
    "jinja2",
    "optuna",
    "sklearn",
    "scipy",
    "timm",
    "torchvision",
)


def test_a_bare_machine_can_begin() -> None:
    hidden = f"import sys; sys.modules.update(dict.fromkeys({NOT_THERE}))"
    code = f"{hidden}; from benchmarks import gpu; gpu.main(['--help'])"
    path = os.pathsep.join([str(gpu.ROOT / "src"), str(gpu.ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--each" in done.stdout
