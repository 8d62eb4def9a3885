"""The report's notebook as it was meant, in Keras: its network, data and optimizers, with layers that are there.

KERAS_BACKEND=jax python examples/keras_mini_inception.py --data images.zip --layer evonorm-s0 --epochs 2 --images 3200

Initial weights, the images taken, their order and augmentation are those of `evonorm train` with the same --data,
--layer, --optimizer and --seed; what is left to differ is rounding, and the draws of dropout. bn-relu has the epsilon
and momentum of Keras's BatchNormalization, as in the report: `evonorm train --norm-eps 1e-3 --norm-momentum 0.01`.
--out FOLDER keeps a record as `evonorm train` does, which `evonorm report FOLDER` draws.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from keras import layers

import evonorm.keras
from evonorm.lab import machine
from evonorm.lab.data import sets
from evonorm.lab.records import listings, run_files
from evonorm.lab.training import inputs
from evonorm.lab.training.augmentation import augment
from evonorm.lab.training.config import Seeds, TrainConfig
from evonorm.lab.training.seeding import generator
from evonorm.models import MiniInception

# Keras's own of BatchNormalization.
BATCH_NORM = {"norm_eps": 1e-3, "norm_momentum": 0.01}


def network(layer: str, *, groups: int = 32, classes: int = 10, dropout: float = 0.5) -> keras.Model:
    """Mini Inception, (N, 32, 32, 3) -> logits (N, classes); layers are called as in evonorm.models.MiniInception."""

    def conv(x: keras.KerasTensor, width: int, kernel: int, name: str, strides: int = 1) -> keras.KerasTensor:
        padding = "same" if strides == 1 else "valid"
        x = layers.Conv2D(width, kernel, strides, padding, data_format="channels_last", name=f"{name}_conv")(x)
        own = {"eps": BATCH_NORM["norm_eps"], "momentum": BATCH_NORM["norm_momentum"]} if layer == "bn-relu" else {}
        return evonorm.keras.NormActivation(
            layer, groups=groups, fit_groups=True, data_format="channels_last", name=f"{name}_norm", **own
        )(x)

    def inception(x: keras.KerasTensor, a: int, b: int, name: str) -> keras.KerasTensor:
        return layers.Concatenate()([conv(x, a, 1, f"{name}_conv1x1"), conv(x, b, 3, f"{name}_conv3x3")])

    def downsample(x: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
        pooled = layers.MaxPooling2D(3, 2, data_format="channels_last")(x)
        return layers.Concatenate()([conv(x, width, 3, f"{name}_conv", strides=2), pooled])

    images = keras.Input((32, 32, 3))
    x = conv(images, 96, 3, "stem")
    for number, (a, b) in enumerate(((32, 32), (32, 48)), 1):
        x = inception(x, a, b, f"inception{number}")
    x = downsample(x, 80, "downsample1")
    for number, (a, b) in enumerate(((112, 48), (96, 64), (80, 80), (48, 96)), 3):
        x = inception(x, a, b, f"inception{number}")
    x = downsample(x, 96, "downsample2")
    for number, (a, b) in enumerate(((176, 160), (176, 160)), 7):
        x = inception(x, a, b, f"inception{number}")
    x = layers.Flatten()(layers.AveragePooling2D(7, data_format="channels_last")(x))
    return keras.Model(images, layers.Dense(classes, name="classifier")(layers.Dropout(dropout)(x)))


class Batches(keras.utils.PyDataset):
    """A training epoch in batches of images / 255, (N, 32, 32, 3), and labels; each epoch in an order of its own."""

    def __init__(self, images: inputs.Images, config: TrainConfig) -> None:
        super().__init__()
        self.images, self.config = images, config
        self.begin(0)

    def __len__(self) -> int:
        return -(-len(self.images) // self.config.batch_size)

    def __getitem__(self, step: int):
        chosen = self.order[step * self.config.batch_size :][: self.config.batch_size]
        pixels = self.images.pixels[chosen].float() / 255
        if self.config.augment:
            number = self.epoch * len(self) + step
            pixels = augment(pixels, generator(self.config.seeds.augmentation, "augmentation", number))
        return pixels.movedim(1, -1).numpy(), self.images.labels[chosen].numpy()

    def begin(self, epoch: int) -> None:
        """Draws the order of an epoch. Not PyDataset's on_epoch_end, which Keras calls before the first epoch too."""
        self.epoch = epoch
        self.order = torch.randperm(len(self.images), generator=generator(self.config.seeds.order, "order", epoch))


def optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    """Keras's own, with the report's numbers: SGD with momentum and a rate that decays by batch, or Adam."""
    if config.optimizer == "adam":
        return keras.optimizers.Adam(1e-3, epsilon=1e-7)
    decayed = keras.optimizers.schedules.InverseTimeDecay(1e-2, decay_steps=1, decay_rate=1e-2 / config.epochs)
    return keras.optimizers.SGD(decayed, momentum=0.9)


def initialized(model: keras.Model, config: TrainConfig, classes: int) -> keras.Model:
    """The network with the initial weights of `evonorm train`."""
    draw = generator(config.seeds.model, "weights")
    return evonorm.keras.from_torch(
        MiniInception(classes, config.layer, groups=config.groups or 1, generator=draw), model
    )


def keep(
    folder: Path, about: dict[str, Any], model: keras.Model, history: dict[str, list[float]], seconds: float
) -> None:
    """Writes a run's record as the lab does; what it ran on says which Keras. about: config and dataset."""
    folder.mkdir(parents=True)
    run_files.write_json(folder / "config.json", about)
    kept = ("evonorm", "commit", "python", "torch", "platform", "processor", "cores")
    environment = {key: value for key, value in machine.environment(torch.device("cpu")).items() if key in kept}
    backend = keras.config.backend()
    environment |= {"keras": keras.__version__, "backend": backend, backend: import_module(backend).__version__}
    run_files.write_json(folder / "environment.json", environment)
    named = {name if name.startswith("val_") else f"train_{name}": values for name, values in history.items()}
    epochs = [
        {"epoch": number, **dict(zip(named, values, strict=True))}
        for number, values in enumerate(zip(*named.values(), strict=True), 1)
    ]
    run_files.rewrite_metrics(folder, epochs)
    summary = {"status": "finished", "epochs_done": len(epochs), "last": epochs[-1], "seconds": seconds}
    parameters = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    run_files.write_json(folder / "summary.json", summary | {"parameters": parameters})


def main(arguments: Sequence[str] | None = None) -> dict[str, list[float]]:
    """Trains, and gives each epoch's metrics."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="cifar10", help=f"{sets.ACCEPTED}")
    parser.add_argument("--layer", default="evonorm-s0", help="bn-relu, evonorm-b0, evonorm-s0 or any of the table")
    parser.add_argument("--groups", type=int, default=32)
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--augment", action="store_true", help="the report's random affine maps and flips")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, help="so many training images, by class; default: all")
    parser.add_argument("--test-images", type=int, help="so many test images, by class; default: all")
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder, which is made, for the run's record")
    given = parser.parse_args(arguments)
    config = TrainConfig(
        layer=given.layer,
        groups=given.groups,
        optimizer=given.optimizer,
        augment=given.augment,
        epochs=given.epochs,
        batch_size=given.batch_size,
        train_images=given.images,
        test_images=given.test_images,
        dropout=given.dropout,
        precision="fp32",
        **(BATCH_NORM if given.layer == "bn-relu" else {}),
        seeds=Seeds(*[given.seed] * 4),
    )
    keras.utils.set_random_seed(given.seed)
    dataset = sets.load(given.data)
    train, test = inputs.on_device(config, dataset, torch.device("cpu"))
    classes = len(dataset.classes)
    model = initialized(
        network(config.layer, groups=given.groups, classes=classes, dropout=given.dropout), config, classes
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(config), loss, metrics=["accuracy"])
    started = time.monotonic()
    batches = Batches(train, config)
    history = model.fit(
        batches,
        epochs=config.epochs,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.begin(epoch))],
        shuffle=False,
        validation_data=((test.pixels.float() / 255).movedim(1, -1).numpy(), test.labels.numpy()),
        validation_batch_size=256,
        verbose=2,
    )
    seconds = time.monotonic() - started
    print(f"{config.layer} on Keras {keras.__version__} with {keras.config.backend()}: {seconds:.0f} s")
    if given.out is not None:
        # The path of the data is this machine's; the record names the data by content.
        told = asdict(replace(config, data=dataset.name, device="cpu"))
        about = {"config": told, "dataset": listings.described(dataset, len(train), len(test))}
        keep(given.out, about, model, history.history, seconds)
    return history.history


if __name__ == "__main__":
    main()
