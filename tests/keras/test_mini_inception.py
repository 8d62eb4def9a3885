"""examples/keras_mini_inception.py beside the torch network and its training run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from examples import keras_mini_inception as example

from evonorm.lab.data import sets
from evonorm.lab.records import run_files
from evonorm.lab.training.config import Seeds, TrainConfig
from evonorm.lab.training.training import train
from evonorm.models import MiniInception
from tests.keras.backends import BACKEND, results

# What a record says of its run, whichever framework trained it.
SAME = ("layer", "optimizer", "epochs", "batch_size", "augment", "dropout", "seeds")
LAYERS = pytest.mark.parametrize("layer", ["bn-relu", "evonorm-b0", "evonorm-s0"])
pytestmark = pytest.mark.skipif(BACKEND == "jax", reason="compiling the network takes JAX too long for this")


@LAYERS
def test_the_same_weights_give_the_same_outputs_and_gradients(layer: str) -> None:
    config = TrainConfig(layer=layer, dropout=0.0)
    eps = 1e-3 if layer == "bn-relu" else None
    torchs = MiniInception(10, layer, eps=eps, dropout=0.0, generator=example.generator(0, "weights"))
    model = example.initialized(example.network(layer, dropout=0.0), config, 10)
    assert model.count_params() == sum(t.numel() for n, t in torchs.state_dict().items())
    random = np.random.default_rng(0)
    x = random.random((2, 32, 32, 3), "float32")
    labels = torch.from_numpy(random.integers(0, 10, 2))
    given = torch.from_numpy(x).movedim(-1, 1).contiguous().requires_grad_()
    y = torchs(given)
    y.retain_grad()
    torch.nn.functional.cross_entropy(y, labels).backward()
    (found,) = results((model, x, y.grad.numpy()))
    np.testing.assert_allclose(found["y"], y.detach().numpy(), rtol=1e-4, atol=1e-5)
    dx = given.grad.movedim(1, -1).numpy()
    np.testing.assert_allclose(found["dx"], dx, rtol=1e-3, atol=1e-3 * np.abs(dx).max())


@pytest.mark.skipif(BACKEND == "tensorflow", reason="torch's optimizers load Triton, which crashes after TensorFlow")
@pytest.mark.parametrize(("layer", "optimizer"), [("bn-relu", "sgd"), ("evonorm-b0", "sgd"), ("evonorm-s0", "adam")])
def test_it_trains_as_evonorm_train_does(layer: str, optimizer: str, tmp_path: Path) -> None:
    """The same images, augmented alike, in the same order, without dropout: two steps with the same losses.

    With more steps rounding grows, as it does between float32 and float64 in torch: a thousand times a step.
    """
    config = TrainConfig(
        layer=layer,
        **(example.BATCH_NORM if layer == "bn-relu" else {}),
        optimizer=optimizer,
        epochs=2,
        batch_size=10,
        train_images=10,
        test_images=10,
        augment=True,
        dropout=0.0,
        precision="fp32",
        seeds=Seeds(3, 3, 3, 3),
    )
    expected = train(config, sets.load("digits"), tmp_path / "lab")
    example.main(
        f"--data digits --layer {layer} --optimizer {optimizer} --epochs 2 --batch-size 10 --images 10 --test-images 10"
        f" --augment --dropout 0 --seed 3 --out {tmp_path / 'keras'}".split()
    )
    found = run_files.read(tmp_path / "keras")
    assert found.dataset == expected.dataset
    assert {k: found.config[k] for k in SAME} == {k: expected.config[k] for k in SAME}
    assert (found.status, found.environment["backend"]) == ("finished", BACKEND)
    assert found.summary["parameters"] == expected.summary["parameters"]
    for epoch, (ours, theirs) in enumerate(zip(found.metrics, expected.metrics, strict=True)):
        np.testing.assert_allclose(ours["train_loss"], theirs["train_loss"], rtol=2e-3 if epoch else 1e-5)
    np.testing.assert_allclose(found.metrics[0]["val_loss"], expected.metrics[0]["val_loss"], rtol=2e-3)
