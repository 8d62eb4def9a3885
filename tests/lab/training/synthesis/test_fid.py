"""The standard FID: the library's own numbers, weights that are refused, and the figure in a run.

The standard weights are not here: random ones in their format stand for them, with their checksum in place of theirs.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from evonorm.lab.data import sets
from evonorm.lab.errors import UserError
from evonorm.lab.jobs.training_job import Training
from evonorm.lab.records import pictures, run_files
from evonorm.lab.training.config import TrainConfig, run_name
from evonorm.lab.training.synthesis import fid, samples
from evonorm.lab.training.synthesis.options import SynthesisOptions
from evonorm.lab.training.synthesis.scores import frechet
from evonorm.lab.training.training import resolve, run_folder, train
from tests.lab.extras import needed

torch_fidelity = needed("torch_fidelity", "fid")
FeatureExtractorInceptionV3 = needed("torch_fidelity.feature_extractor_inceptionv3", "fid").FeatureExtractorInceptionV3

SMALL = "64"  # the features of an earlier layer: the eigenvalues of 2,048 take half a minute
CPU = torch.device("cpu")
CONFIG = TrainConfig(
    task="synthesis",
    layer="gn-relu",
    optimizer="adam",
    learning_rate=2e-4,
    epochs=1,
    batch_size=10,
    train_images=30,
    test_images=20,
    precision="fp32",
    device="cpu",
    data="digits",
    options=SynthesisOptions(width=2, generator_every=2, judge_epochs=1, judge_images=30),
)


class Untrained(FeatureExtractorInceptionV3):
    """The library loads weights as it makes the network; these are to be made first."""

    def load_state_dict(self, state, *at, **named):
        return None


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = Untrained("random", [SMALL], feature_extractor_weights_path=nothing)
    source = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, generator=source)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def standard(weights: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of what passes for the standard weights here, of a network that is quick."""
    monkeypatch.setattr(fid, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest())
    monkeypatch.setattr(fid, "_FEATURES", SMALL)
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 107)
    return str(weights)


def drawn(count: int, seed: int) -> torch.Tensor:
    """Images of low frequencies, uint8 (count, 3, 32, 32)."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (255 * nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1)).byte()


class Pictures(Dataset):
    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, place: int) -> torch.Tensor:
        return self.pixels[place]


def test_the_layers_are_those_of_fid_and_inception_score() -> None:
    assert FeatureExtractorInceptionV3.get_default_feature_layer_for_metric("fid") == fid._FEATURES
    assert FeatureExtractorInceptionV3.get_default_feature_layer_for_metric("isc") == fid._LOGITS


def test_the_figures_are_the_librarys(standard: str) -> None:
    """Called as its users call it; and the distance is the formula's."""
    real, made = drawn(30, 1), drawn(40, 2)
    inception = fid.Inception(standard, CPU)
    batches = ((part.float() / 127.5 - 1) for part in torch.split(made, 7))
    found = fid.measured(inception, real, batches, lambda: False)
    expected = torch_fidelity.calculate_metrics(
        input1=Pictures(made),
        input2=Pictures(real),
        fid=True,
        isc=True,
        feature_layer_fid=SMALL,
        feature_extractor_weights_path=standard,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    assert found["fid"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    assert found["inception_score"] == pytest.approx(expected["inception_score_mean"], rel=1e-4)
    assert found["inception_score_deviation"] == pytest.approx(expected["inception_score_std"], rel=1e-3)
    assert (found["samples"], found["training_images"]) == (40, 30)
    features = [inception([pixels], lambda: False)[0] for pixels in (made, real)]
    assert found["fid"] == pytest.approx(frechet(*features), rel=1e-3)
    assert found["fid"] > 0
    assert fid.told(found).startswith(f"FID {found['fid']:.4g} of 40 samples to 30 training images, Inception score ")


def test_other_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    """By them it would be no FID that compares with others."""
    with pytest.raises(UserError, match=r"does not hold the standard weights.*theirs with 6726825d; give weights-"):
        fid.Inception(str(weights), CPU)
    assert fid.SHA256[:8] in fid.FILES
    with pytest.raises(UserError, match=r"there is no file 'no\.pth'"):
        fid.require("no.pth")


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_weights_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps(Bomb()))
    monkeypatch.setattr(fid, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(UserError, match="holds more than tensors, or cannot be read"):
        fid.Inception(str(path), CPU)
    assert not Path("exploded").exists()


def test_a_path_is_no_part_of_a_run(standard: str) -> None:
    config = replace(CONFIG, options=replace(CONFIG.options, inception=standard, fid_samples=10))
    assert run_name(resolve(config)[0], "data") == run_name(resolve(CONFIG)[0], "data")
    sweep = Training({"task": "synthesis", "options.width": 2, "options.inception": standard}, "data")
    assert sweep.describe()["training"] == {"task": "synthesis", "options.width": 2}


def test_a_run_gets_it_when_it_ends_or_later(standard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "STANDING", 1)
    digits = sets.load("digits")
    folder = run_folder(CONFIG, digits, tmp_path)
    before = train(CONFIG, digits, tmp_path)
    assert not (folder / fid.NAME).exists()

    def again(out: Path, count: int | None) -> dict:
        options = replace(CONFIG.options, inception=standard, fid_samples=count)
        after = train(replace(CONFIG, options=options), digits, out)
        assert (after.status, after.name) == ("finished", before.name)
        assert not any(standard in file.read_text() for file in (out / after.name).glob("*.json*"))
        return json.loads((out / after.name / fid.NAME).read_text())

    found = again(tmp_path, 12)
    assert (found["samples"], found["training_images"]) == (12, 30)
    assert run_files.read(folder).metrics == before.metrics
    (grid,) = (one for one in pictures.of_run(folder) if one.kind == "samples")
    assert grid.caption.endswith(f"; {fid.told(found)}.")
    # What is there is not taken again, unless another number of samples is asked for.
    sessions = run_files.read(folder).environment["sessions"]
    assert again(tmp_path, None) == found
    assert run_files.read(folder).environment["sessions"] == sessions
    assert again(tmp_path, 11)["samples"] == 11
    # A run that has it from the start, beside the same judge, gets the same.
    other = tmp_path / "other"
    judge = json.loads((folder / "judge.json").read_text())["run"]
    shutil.copytree(tmp_path / judge, other / judge)
    assert again(other, 12) == found


def test_a_stop_while_it_is_taken_is_a_stop(standard: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        fid.measured(fid.Inception(standard, CPU), drawn(10, 1), iter([]), lambda: True)


def test_samples_are_asked_for_with_weights() -> None:
    with pytest.raises(UserError, match="fid_samples=50 is of inception"):
        SynthesisOptions(fid_samples=50)
    with pytest.raises(UserError, match="at least 10"):
        SynthesisOptions(fid_samples=9, inception="weights.pth")
