"""What the parser shows and refuses: in words, in a line, with what was meant."""

from __future__ import annotations

import re

import pytest

from evonorm import cli

COMMANDS = {
    "": "evonorm",
    "train": "evonorm train",
    "reproduce": "evonorm reproduce",
    "sweep": "evonorm sweep",
    "sweep run": "evonorm sweep run",
    "sweep status": "evonorm sweep status",
    "sweep best": "evonorm sweep best",
    "report": "evonorm report",
    "export": "evonorm export",
    "bench": "evonorm bench",
    "layers": "evonorm layers",
    "plan": "evonorm plan",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_in_words(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), option])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: {COMMANDS[command]} [options]")
    for of_python in ("type: ", "null", "Literal", "Optional", "None", "<class '", "Namespace", "default: [", "False"):
        assert of_python not in shown
    assert not re.search(r"^ +(-\w .*, )?--\w+_", shown, re.MULTILINE), "options are shown with hyphens"
    assert "Example: evonorm " in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_command_lines(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    example = " ".join(capsys.readouterr().out.partition("Example: evonorm ")[2].split()).split()
    cli.build_parser().parse_args(cli._normalized(example))


NO_SET = "evonorm train has no option --set, which is of `evonorm sweep run`"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("train --lerning_rate 3", "evonorm train has no option --lerning-rate; did you mean --learning-rate?"),
        ("train --lerning-rate=3", "evonorm train has no option --lerning-rate; did you mean --learning-rate?"),
        ("train --epoch 3", "evonorm train has no option --epoch; did you mean --epochs?"),
        ("train --set learnig_rate=1", f"{NO_SET}; did you mean --learning-rate?"),
        ("train --set=learnig_rate=1", f"{NO_SET}; did you mean --learning-rate?"),
        ("train --set x", f"{NO_SET}; `evonorm train --help` lists them"),
        ("train --layers x", "evonorm train has no option --layers, which is of `evonorm reproduce`, `evonorm bench`;"),
        ("train --workers 3", "evonorm train has no option --workers, which is of `evonorm reproduce`, `evonorm sweep"),
        ("sweep run x --groups 3", "evonorm sweep run has no option --groups, which is of `evonorm train`, "),
        ("train -x", "evonorm train has no option -x; `evonorm train --help` lists them"),
        ("train --zzzzz", "evonorm train has no option --zzzzz; `evonorm train --help` lists them"),
        ("train stray", "evonorm train does not know what to do with 'stray'; `evonorm train --help` says what it"),
        ("train --groups 1.5", "--groups must be a whole number: got 1.5"),
        ("train --groups=", "--groups must be a whole number: got "),
        ("train --learning-rate fast", "--learning-rate must be a number: got fast"),
        ("train --augment maybe", "--augment must be true or false: got maybe"),
        ("train --precision fp23", "--precision must be auto, fp32 or bf16: got fp23; did you mean fp32?"),
        ("train --optimizer sdg", "--optimizer must be sgd or adam: got sdg; did you mean sgd?"),
        ("train --seeds.modl 1", "evonorm train has no option --seeds.modl; did you mean --seeds.model?"),
        ("train --seed x", "--seed must be a whole number: got x"),
        ("train --epochs", "--epochs needs a value"),
        ("trian", "there is no COMMAND 'trian' of evonorm; did you mean train?"),
        ("xyz", "there is no COMMAND 'xyz' of evonorm; choose from reproduce, train, sweep,"),
        ("", "which COMMAND of evonorm? reproduce, train, sweep,"),
        ("sweep", "which COMMAND of evonorm sweep? run, status, best"),
        ("sweep statsu", "there is no COMMAND 'statsu' of evonorm sweep; did you mean status?"),
        ("sweep run file.yaml", "evonorm sweep run needs --out"),
        ("sweep best x --as-arg", "evonorm sweep best has no option --as-arg; did you mean --as-args?"),
        ("report", "evonorm report needs RUNS; `evonorm report --help` says what it is"),
        ("export", "evonorm export needs FOLDER"),
        ("plan resnet18", "evonorm plan needs LAYER"),
        ("plan resnet18 bn-relu --group 3", "evonorm plan has no option --group; did you mean --groups?"),
        ("reproduce --budget ful", "--budget must be quick, hour, full or quarter: got ful; did you mean full?"),
        ("reproduce --seeds 1 x", "--seeds must be a whole number: got x"),
        ("bench --dtypes fp16", "--dtypes must be bf16 or fp32: got fp16"),
        ("layers now", "evonorm layers does not know what to do with 'now'"),
    ],
)
def test_a_mistake_is_one_line(arguments: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments.split())
    assert ended.value.code == cli.USER_ERROR
    shown = capsys.readouterr().err
    assert shown.startswith(f"evonorm: {told}")
    assert shown.count("\n") == 1
