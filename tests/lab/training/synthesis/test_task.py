"""The task `synthesis` as a run: its record and pictures, going on to the last bit, faults, the judge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evonorm.lab.data import sets
from evonorm.lab.errors import UserError
from evonorm.lab.records import pictures, run_files
from evonorm.lab.stopping import Held
from evonorm.lab.training import checkpoint, training
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.synthesis import judge, samples
from evonorm.lab.training.synthesis.options import SynthesisOptions
from evonorm.lab.training.training import run_folder, train

OPTIONS = SynthesisOptions(width=2, generator_every=2, accumulate=2, average=0.9, judge_epochs=1, judge_images=60)
CONFIG = TrainConfig(
    task="synthesis",
    layer="bn-relu",
    optimizer="adam",
    learning_rate=2e-4,
    epochs=2,
    batch_size=10,
    train_images=50,
    test_images=40,
    precision="fp32",
    device="cpu",
    data="digits",
    options=OPTIONS,
)


@pytest.fixture(scope="module")
def digits() -> sets.ImageDataset:
    return sets.load("digits")


@pytest.fixture(autouse=True, scope="module")
def _few_standing_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "STANDING", 1)
        yield


def stop_after(steps: int):
    """A stop request that comes before the step after so many."""
    asked = iter(range(steps + 1))
    return lambda: next(asked, None) is None or False


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory) -> Path:
    """A finished run, and the judge beside it."""
    out = tmp_path_factory.mktemp("whole")
    train(CONFIG, digits, out)
    return run_folder(CONFIG, digits, out)


def test_a_run_has_its_metrics_pictures_and_judge(whole: Path) -> None:
    record = run_files.read(whole)
    assert record.status == "finished"
    assert set(record.metrics[0]) == {
        *("epoch", "train_loss", "train_generator_loss", "val_distance", "val_score"),
        *("learning_rate", "images_per_second", "seconds"),
    }
    assert record.metrics[0]["val_distance"] > 0
    assert 1 <= record.metrics[0]["val_score"] <= 10
    assert record.summary["best"]["val_distance"] == min(epoch["val_distance"] for epoch in record.metrics)
    shown = {(one.kind, one.epoch) for one in pictures.of_run(whole)}
    assert shown == {(kind, epoch) for kind in ("samples", "interpolation") for epoch in (1, 2)}
    assert all("not comparable with published FID" in one.caption for one in pictures.of_run(whole))
    judge = json.loads((whole / "judge.json").read_text())
    beside = run_files.read(whole.parent / judge["run"])
    assert (beside.status, beside.config["layer"], beside.config["train_images"]) == ("finished", "bn-relu", 60)
    assert judge["accuracy"] == beside.metrics[-1]["val_accuracy"]
    assert "not comparable" in judge["note"]
    assert judge["distance_of_training_images"] < record.metrics[-1]["val_distance"]


def test_it_goes_on_to_the_last_bit(whole: Path, digits, tmp_path: Path) -> None:
    """Stopped in the middle of an epoch, between two steps of the generator."""
    assert train(CONFIG, digits, tmp_path, stop=stop_after(3)).status == "stopped"
    record = train(CONFIG, digits, tmp_path)
    assert record.status == "finished"
    folder = run_folder(CONFIG, digits, tmp_path)
    one, other = (torch.load(path / checkpoint.NAME, weights_only=True) for path in (whole, folder))
    pairs = zip(_tensors(one), _tensors(other), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    timed = ("images_per_second", "seconds")
    for before, after in zip(run_files.read(whole).metrics, record.metrics, strict=True):
        assert {k: v for k, v in before.items() if k not in timed} == {k: v for k, v in after.items() if k not in timed}
    for before, after in zip(pictures.of_run(whole), pictures.of_run(folder), strict=True):
        assert before.path.read_bytes() == after.path.read_bytes()


def _tensors(state):
    if isinstance(state, torch.Tensor):
        yield state
    for value in state.values() if isinstance(state, dict) else state if isinstance(state, list) else ():
        yield from _tensors(value)


def test_a_run_that_diverges_says_where(digits, tmp_path: Path) -> None:
    config = replace(CONFIG, learning_rate=1e30, layer="gn-relu")
    record = train(config, digits, tmp_path)
    assert record.status == "diverged"
    assert record.summary["diagnosis"]["tensor"].startswith(("discriminator.", "generator."))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"optimizer": "sgd"}, "got optimizer=sgd; say optimizer=adam"),
        ({"standardize": True}, "standardize is not of task=synthesis"),
        ({"model": "resnet18"}, "task=synthesis trains biggan: got model='resnet18'"),
    ],
)
def test_what_is_not_for_it(digits, tmp_path: Path, given, words: str) -> None:
    with pytest.raises(UserError, match=words):
        train(replace(CONFIG, **given), digits, tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"width": 0}, "width must be at least 1"), ({"truncation": 0.0}, "above 0"), ({"average": 1.0}, "in \\[0, 1\\)")],
)
def test_options_that_are_wrong(given, words: str) -> None:
    with pytest.raises(UserError, match=words):
        SynthesisOptions(**given)


def test_who_comes_second_waits_for_the_judge(digits, whole: Path, monkeypatch) -> None:
    """Another run of the experiment trains it."""
    held = iter([Held("another process is training in it")])
    real, waited = training.train, []

    def once_held(*arguments, **named):
        for refusal in held:
            raise refusal
        return real(*arguments, **named)

    monkeypatch.setattr(training, "train", once_held)
    monkeypatch.setattr(judge.time, "sleep", waited.append)
    config = judge.config(CONFIG, epochs=1, images=60)
    found = judge.ready(config, digits, whole.parent, torch.device("cpu"), lambda: False)
    assert waited == [judge._WAIT_SECONDS]
    assert found.name == json.loads((whole / "judge.json").read_text())["run"]
    features, logits = found(torch.zeros(3, 3, 32, 32))
    assert (features.shape, logits.shape) == ((3, 336), (3, 10))


def test_a_stop_while_the_judge_is_made_is_a_stop(digits, tmp_path: Path) -> None:
    """Nothing of the run is there yet; the judge goes on with it."""
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, digits, tmp_path, stop=lambda: True)
    (made,) = run_files.read_all(tmp_path).records
    assert (made.config["task"], made.status) == ("classification", "stopped")
    assert train(CONFIG, digits, tmp_path).status == "finished"


def test_a_stop_while_another_makes_the_judge_is_a_stop(digits, tmp_path: Path, monkeypatch) -> None:
    def held(*arguments, **named):
        raise Held("another process is training in it")

    monkeypatch.setattr(training, "train", held)
    with pytest.raises(KeyboardInterrupt):
        judge.ready(CONFIG, digits, tmp_path, torch.device("cpu"), lambda: True)
