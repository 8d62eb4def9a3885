"""Larger pictures, by what `--data` says: a run at 64 pixels with its judge, networks at 128, sizes there are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from evonorm.lab.data import sets
from evonorm.lab.errors import UserError
from evonorm.lab.records import pictures, run_files
from evonorm.lab.training import checkpoint
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.synthesis import samples
from evonorm.lab.training.synthesis.options import SynthesisOptions
from evonorm.lab.training.tasks.synthesis import Synthesis
from evonorm.lab.training.training import resolve, run_folder, train

CONFIG = TrainConfig(
    task="synthesis",
    layer="bn-relu",
    optimizer="adam",
    learning_rate=2e-4,
    epochs=1,
    batch_size=4,
    precision="fp32",
    device="cpu",
    options=SynthesisOptions(width=1, generator_every=2, judge_epochs=1),
)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares of scikit-learn's two photographs, a class each, of 90 pixels."""
    folder = tmp_path_factory.mktemp("crops")
    random = np.random.default_rng(0)
    for name, photograph in zip(("china", "flower"), load_sample_images().images, strict=True):
        for split, count in (("train", 6), ("test", 3)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                top, left = (int(random.integers(length - 90)) for length in photograph.shape[:2])
                part = photograph[top : top + 90, left : left + 90]
                Image.fromarray(part).save(folder / split / name / f"{number}.png")
    return folder


def opened(crops: Path, side: int, cache: Path) -> sets.ImageDataset:
    return sets.load(f"{crops}@{side}", cache_folder=cache, say=lambda text: None)


def test_a_run_at_64_pixels_goes_on_to_the_last_bit(crops: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(samples, "STANDING", 1)
    data = opened(crops, 64, tmp_path / "cache")
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    record = train(CONFIG, data, whole)
    assert record.status == "finished"
    assert np.isfinite(record.metrics[-1]["val_distance"])
    asked = iter(range(2))
    # The judge is a run of its own: it is there before the stop is asked for.
    judge = next(path for path in whole.iterdir() if path.name.startswith("bn-relu-adam"))
    parted.mkdir()
    judge.rename(parted / judge.name)
    assert train(CONFIG, data, parted, stop=lambda: next(asked, None) is None).status == "stopped"
    assert train(CONFIG, data, parted).status == "finished"
    folders = [run_folder(CONFIG, data, out) for out in (whole, parted)]
    states = [torch.load(folder / checkpoint.NAME, weights_only=True)["model"] for folder in folders]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    shown = [[*pictures.of_run(folder)] for folder in folders]
    assert {one.kind: one.size for one in shown[0]} == {
        "samples": (2 * 65 + 1, 8 * 65 + 1),
        "interpolation": (9 * 65 + 1, 2 * 65 + 1),
    }
    assert [one.path.read_bytes() for one in shown[0]] == [one.path.read_bytes() for one in shown[1]]
    made = run_files.read(parted / judge.name)
    assert (made.status, made.config["task"], made.dataset["name"]) == (
        "finished",
        "classification",
        f"{crops.name}@64",
    )


def test_the_networks_at_128_pixels(crops: Path, tmp_path: Path) -> None:
    data = opened(crops, 128, tmp_path / "cache")
    work = Synthesis(resolve(CONFIG)[0], data, torch.device("cpu"), tmp_path)
    networks = work.network()["networks"]
    images, labels = work.batch(torch.arange(2), 0)
    made = networks.generator(torch.randn(2, networks.generator.latent), labels)
    assert made.shape == images.shape == (2, 3, 128, 128)
    assert networks.discriminator(torch.cat([made, images]), labels.repeat(2)).shape == (4,)


def test_other_sizes_are_refused(crops: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, options=replace(CONFIG.options, width=2))
    work = Synthesis(resolve(config)[0], opened(crops, 48, tmp_path), torch.device("cpu"), tmp_path)
    with pytest.raises(UserError, match="images of 32, 64, 128 pixels: got 48; say --data NAME@64"):
        work.network()
