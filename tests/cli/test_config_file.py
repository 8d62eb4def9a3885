"""--config: whatever the file holds, no traceback; and what it may hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evonorm import cli

BROKEN = {
    "not UTF-8": (b"layer: bn-relu\n# \xe9t\xe9\n", "is not text: byte 17 is not UTF-8"),
    "a binary": (b"\x7fELF\x02\x01\x01\xff\xfe\x00", "is not text: byte 7 is not UTF-8"),
    "zeros": (b"\x00" * 40, "is not YAML"),
    "UTF-16": ("layer: bn-relu".encode("utf-16"), "is not text: byte 0 is not UTF-8"),
    "empty": (b"", "names no option"),
    "comments alone": (b"# layer: bn-relu\n", "names no option"),
    "a list": (b"- layer\n- bn-relu\n", "must hold names and values, not a list"),
    "a word": (b"bn-relu\n", "must hold names and values, not a str"),
    "a number": (b"3\n", "must hold names and values, not a int"),
    "a bracket": (b"layer: [bn-relu\n", "is not YAML: line 2, column 1"),
    "a tab": (b"layer:\tbn-relu\n\tepochs: 3\n", "is not YAML: line 1, column 7"),
    "two documents": (b"layer: bn-relu\n---\nepochs: 1\n", "is not YAML"),
    "a tag": (b"layer: !!python/object:os.system x\n", "is not YAML: line 1, column 8"),
    "an unknown name": (b"learnin_rate: 1\n", "there is no option 'learnin_rate'; did you mean 'learning_rate'?"),
    "a hyphen": (b"train-images: 20\n", "there is no option 'train-images'; did you mean 'train_images'?"),
    "a name that is a number": (b"3: 4\n", "there is no option '3'; `evonorm train --help` lists them"),
    "an unknown seed": (b"seeds: {modl: 3}\n", "there is no option 'seeds.modl'; did you mean 'seeds.model'?"),
    "a seed for all": (b"seeds: 3\n", "seeds must hold names and values, as in `seeds: {model: 1}`: got 3"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_told_in_words(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, told = BROKEN[kind]
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    for given in (["--config", str(file)], [f"--config={file}"]):
        assert cli.main(["train", *given, "--out", str(tmp_path / "runs")]) == cli.USER_ERROR
        shown = capsys.readouterr().err
        assert shown.startswith(f"evonorm: {file}")
        assert told in shown
        assert shown.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_place_without_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, why in ((tmp_path, "Is a directory"), (tmp_path / "nowhere.yaml", "No such file or directory")):
        assert cli.main(["train", "--config", str(place)]) == cli.USER_ERROR
        assert f"cannot read {str(place)!r}: {why}; --config takes a YAML file" in capsys.readouterr().err
    assert cli.main(["train", "--config", ""]) == cli.USER_ERROR


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("layer: bn-relu\n")
    file.chmod(0)
    assert cli.main(["train", "--config", str(file)]) == cli.USER_ERROR
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("epochs: many", "--epochs must be a whole number: got many"),
        ("augment: perhaps", "--augment must be true or false: got perhaps"),
        ("precision: fp8", "--precision must be auto, fp32 or bf16: got fp8"),
    ],
)
def test_a_value_of_the_wrong_kind(content: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--config", str(file)])
    assert ended.value.code == cli.USER_ERROR
    assert told in capsys.readouterr().err
