"""The task detection in runs: what they keep, resuming to the last bit, divergence, frozen norms, refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evonorm import Plan
from evonorm.lab.data import coco, pasted
from evonorm.lab.data.coco import DetectionDataset
from evonorm.lab.data.sets import load
from evonorm.lab.errors import UserError
from evonorm.lab.pages import page
from evonorm.lab.records import pictures, run_files
from evonorm.lab.training import checkpoint, tasks
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.tasks import detection_steps
from evonorm.lab.training.training import check, train
from evonorm.models import mask_rcnn
from tests.lab.extras import needed
from tests.lab.training.test_training import StopAfter, curves

needed("pycocotools", "detection")
CONFIG = TrainConfig(
    task="detection",
    layer="evonorm-s0",
    plain_norms="affine",
    epochs=2,
    batch_size=2,
    train_images=6,
    learning_rate=0.01,
    precision="fp32",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    """Eight pictures to train on and four to validate on, in one of which there is nothing to be found."""
    folder = tmp_path_factory.mktemp("data") / "set"
    pasted.write(pasted.Pasting(load("digits"), 0, 8, 4), folder)
    file = folder / "val/annotations.json"
    content = json.loads(file.read_text())
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 2]
    file.write_text(json.dumps(content))
    return coco.read(folder)


@pytest.fixture(scope="module")
def whole(data: DetectionDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was not interrupted."""
    out = tmp_path_factory.mktemp("runs")
    return out / train(CONFIG, data, out).name


def test_what_a_run_keeps(whole: Path, data: DetectionDataset) -> None:
    record = run_files.read(whole)
    assert record.status == "finished"
    assert record.name.startswith("detection-mask-rcnn-small-evonorm-s0-g32-sgd-")
    precisions = ("val_box_ap", "val_box_ap50", "val_mask_ap", "val_mask_ap50")
    assert list(record.metrics[0]) == [
        *("epoch", "train_loss", "val_loss", *precisions),
        *("learning_rate", "images_per_second", "seconds"),
    ]
    assert record.metrics[1]["train_loss"] < record.metrics[0]["train_loss"]
    assert (record.dataset["train_images"], record.dataset["test_images"]) == (6, 4)
    assert record.dataset["classes"] == list("0123456789")
    found = json.loads((whole / "detections.json").read_text())
    assert {one["image_id"] for one in found} <= {1, 2, 3, 4}
    assert all(set(one) == {"image_id", "category_id", "bbox", "score", "segmentation"} for one in found)
    by_class = run_files.read_json(whole / "classes.json")
    assert by_class["epoch"] == 2
    assert list(by_class["classes"]) == list("0123456789")
    plan = Plan.from_json((whole / "plan.json").read_text())
    assert len(plan.replaced) == 24
    assert [(one.kind, one.epoch) for one in pictures.of_run(whole)] == [("detections", 1), ("detections", 2)]
    assert "left the truth" in page.render(whole)


def test_the_average_precisions_are_of_the_results_that_are_kept(whole: Path, data: DetectionDataset) -> None:
    from evonorm.lab.training.tasks.detection_scores import scores

    overall, _ = scores(data.val, json.loads((whole / "detections.json").read_text()))
    last = run_files.read(whole).metrics[-1]
    assert {name: last[f"val_{name}"] for name in overall} == overall


def test_a_stopped_run_goes_on_to_the_last_bit(whole: Path, data: DetectionDataset, tmp_path: Path) -> None:
    for steps in (2, 3):  # within the first epoch, and in the second
        assert train(CONFIG, data, tmp_path, watch=StopAfter(steps)).status == "stopped"
    record = train(CONFIG, data, tmp_path)
    assert record.status == "finished"
    assert curves(record) == curves(run_files.read(whole))
    one, other = (
        torch.load(folder / checkpoint.NAME, weights_only=True)["model"] for folder in (whole, tmp_path / record.name)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    for name in ("detections.json", "classes.json", "pictures/detections-0002.png"):
        assert (whole / name).read_bytes() == (tmp_path / record.name / name).read_bytes()


def test_a_diverged_run_says_where(data: DetectionDataset, tmp_path: Path) -> None:
    record = train(replace(CONFIG, layer="none", learning_rate=1e6, batch_size=1), data, tmp_path)
    assert record.status == "diverged"
    assert record.summary["diagnosis"]["tensor"]
    assert record.summary["diagnosis"]["cause"]


def test_frozen_norms_stay_as_their_first_pictures_left_them(data: DetectionDataset, tmp_path: Path) -> None:
    """Two runs of one seed that learn otherwise: their statistics are alike, their weights are not."""
    config = replace(CONFIG, layer="bn-relu", options=tasks.DetectionOptions(freeze_norms=True), epochs=1)
    states = []
    for rate in (1e-3, 3e-3):
        record = train(replace(config, learning_rate=rate), data, tmp_path)
        assert record.status == "finished"
        states.append(torch.load(tmp_path / record.name / checkpoint.NAME, weights_only=True)["model"])
    one, other = states
    statistics = [name for name in one if "running" in name]
    assert len(statistics) == 48
    assert all(torch.equal(one[name], other[name]) for name in statistics)
    assert not all((one[name] == one[name][0]).all() for name in statistics)
    assert not torch.equal(one["backbone.body.conv1.weight"], other["backbone.body.conv1.weight"])


def test_bf16_stays_in_the_backbone(data: DetectionDataset) -> None:
    torch.manual_seed(0)
    model, _ = mask_rcnn.build(mask_rcnn.SMALL, 10, "gn-relu")
    images, targets = detection_steps.batch(data.val, range(2), torch.device("cpu"))
    with torch.inference_mode():
        loss, found = detection_steps.judged(model.eval(), images, targets, bf16=True)
        plain, _ = detection_steps.judged(model, images, targets)
    assert {value.dtype for one in found for value in one.values()} == {torch.float32, torch.int64}
    assert 0 < abs(loss.item() - plain.item()) < 0.1 * plain.item()


def test_losses_and_detections_are_torchvisions(data: DetectionDataset) -> None:
    torch.manual_seed(0)
    model, _ = mask_rcnn.build(mask_rcnn.SMALL, 10, "gn-relu")
    images, targets = detection_steps.batch(data.train, range(2), torch.device("cpu"))
    torch.manual_seed(1)
    theirs = sum(model(images, targets).values())
    torch.manual_seed(1)
    ours = detection_steps.losses(model, images, targets)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    with torch.inference_mode():
        loss, found = detection_steps.judged(model.eval(), images, targets)
        expected = model(images)
    assert math.isfinite(loss.item())
    assert not any(part.training for part in model.modules())
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"augment": True}, "augment is not of task=detection"),
        ({"standardize": True}, "standardize is not of task=detection"),
        ({"dropout": 0.5}, "dropout is not of task=detection"),
        ({"options": tasks.DetectionOptions(True)}, "options.freeze_norms is of layer=bn-relu: got layer=evonorm-s0"),
        ({"model": "resnet18"}, "no detector is called 'resnet18'; choose from mask-rcnn-small, maskrcnn_resnet50"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check(replace(CONFIG, **change))  # type: ignore[arg-type]
