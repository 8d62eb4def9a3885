"""What one training run is: a frozen dataclass whose content names the run."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from evonorm.lab.errors import UserError
from evonorm.lab.training import tasks

# Where the data lies and how the machine computes it does not change what is computed.
NOT_IDENTITY = ("data", "device", "check_steps", "capture")
REPORT_MODEL, REPORT_DROPOUT = "mini-inception", 0.5
# Fields younger than runs that exist: at these values they are left out of the hash, so that those keep their names.
YOUNGER: dict[str, Any] = {
    **{"task": tasks.DEFAULT, "model": REPORT_MODEL, "plain_norms": "keep", "formula": None},
    **{"schedule": "decay", "step_epochs": None, "step_factor": 0.1, "warmup_epochs": 0.0, "weight_decay": 0.0},
    "options": {},
}
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Seeds:
    """Where randomness enters a run; each seed moves its own part and no other.

    Args:
        model: initial weights and dropout masks.
        order: order of the training images in each epoch.
        augmentation: the random affine maps and flips.
        subset: which images a smaller training or test set keeps.
    """

    model: int = 0
    order: int = 0
    augmentation: int = 0
    subset: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= LARGEST_SEED:
                raise UserError(f"seeds must be between 0 and 2^63 - 1: got seeds.{name}={value}")


@dataclass(frozen=True)
class TrainConfig:
    """One training run; the defaults are the report's set-up.

    Args:
        layer: normalization-activation layer; `evonorm layers` lists them.
        model: network: mini-inception; a classifier of torchvision by its name, as resnet18, resnet50, mobilenet_v2,
            mnasnet1_0, efficientnet_b0 (torchvision:NAME says the same); or timm:NAME. Theirs start with random
            weights and get a stem for 32x32 pixels. Of task detection: mask-rcnn-small, the default there, or
            maskrcnn_resnet50_fpn_v2.
        formula: what `layer` is, where it is none of the table: text as `evonorm layers` shows it, with the values that
            its parameters begin with, as in "x * sigmoid(v * x) / rms_group * weight + bias; v=1".
        plain_norms: what becomes of a network's norms that no activation follows: kept as they are; affine, the layer
            with its activation off; or replaced by the whole layer. Mini Inception has none.
        groups: groups of the layers that have group statistics; where they do not divide a width, the largest
            divisor below is used and recorded.
        norm_eps: epsilon of the layer; default: the layer's own.
        norm_momentum: weight of the newest batch in running statistics, of norms that are kept too (Keras counts the
            other way: 1 - this).
        optimizer: sgd or adam, as Keras defines them.
        learning_rate: initial learning rate; default: 1e-2 for sgd, 1e-3 for adam.
        schedule: how the learning rate falls: decay, as the report's does; cosine, to 0 at the end of the last epoch;
            step, by step_factor every step_epochs.
        decay: per batch, learning rate / (1 + decay * batches so far); default: 1e-2 / epochs for sgd, 0 for adam and
            for other schedules.
        step_epochs: epochs between the steps of schedule step, counted from the start; default: a third of epochs.
        step_factor: what each step of schedule step multiplies the learning rate by.
        warmup_epochs: the learning rate rises to its height in equal steps, a batch each, over so many epochs.
        weight_decay: sgd: gradient + weight_decay * parameter; adam: parameter - learning rate * weight_decay *
            parameter, apart from the gradient. Without the parameters of normalizations, as evonorm.parameter_groups
            has it.
        momentum: momentum of sgd.
        clip_norm: clip the gradient of each tensor to this norm; default: no clipping.
        epochs: passes over the training images.
        batch_size: images in a training batch.
        steps_per_epoch: batches in an epoch; default: as many as the training images fill, the last one may be short.
        augment: random rotation, shift, shear, zoom and flip, as in the report.
        augment_centre: centre of the affine map: `report` is one pixel past the true one, as keras-preprocessing 1.1.2
            has it; `true` is the image's.
        data: `cifar10`, `digits`, a CIFAR-10 archive or folder, or an image folder or zip of
            {train,test}/<class>/<image>, as NAME@64 for 64x64 pixels instead of 32x32; default: CIFAR-10 if it is
            cached or can be had, else `digits`. Of task detection: a folder in COCO's format, or any of these pasted on
            photographs; default: `digits`.
        train_images: size of a class-balanced subset of the training images; default: all.
        test_images: size of a class-balanced subset of the test images; default: all.
        validation_images: validate on the first so many of the test images; default: all of them.
        standardize: subtract the training images' mean and divide by their standard deviation, per channel, instead of
            dividing pixels by 255 alone.
        dropout: probability of dropping a feature before the classifier; default: 0.5 in mini-inception, in the
            others their own.
        precision: fp32, bf16 (autocast), or auto: bf16 where the processor computes in it fast.
        backend: kernel (fused, on a CPU), triton (fused, on CUDA; on a CPU interpreted, under TRITON_INTERPRET=1),
            reference (plain torch), or auto: the kernel where one serves, but torch's own BatchNorm and GroupNorm,
            which is what the others are compared with.
        channels_last: keep activations in channels-last memory order.
        device: cpu, cuda, or auto: cuda where there is one.
        check_steps: steps between two looks at whether losses and gradients were finite; where they were not, the steps
            since are taken again, one by one. Default: 1 on a CPU, where looking costs nothing, and with several
            processes; 32 on CUDA, where each look waits for the device (no GPU has run this yet).
        capture: on CUDA, the whole step (data, augmentation, network, optimizer) and validation as CUDA graphs, which
            the host launches with one call each. No GPU has run it yet.
        task: what the network is trained for: classification, detection, or a task of your own, whose Python file the
            command line takes here; a task may have options besides, which `--task NAME --help` shows.
        options: those, as the frozen dataclass of the task's row; default: its defaults.
        seeds: where randomness enters.
    """

    layer: str = "evonorm-s0"
    model: str = REPORT_MODEL
    formula: str | None = None
    plain_norms: Literal["keep", "affine", "replace"] = "keep"
    groups: int | None = 32
    norm_eps: float | None = None
    norm_momentum: float = 0.1
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float | None = None
    schedule: Literal["decay", "cosine", "step"] = "decay"
    decay: float | None = None
    step_epochs: int | None = None
    step_factor: float = 0.1
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    momentum: float = 0.9
    clip_norm: float | None = None
    epochs: int = 60
    batch_size: int = 128
    steps_per_epoch: int | None = None
    augment: bool = False
    augment_centre: Literal["report", "true"] = "report"
    data: str | None = None
    train_images: int | None = None
    test_images: int | None = None
    validation_images: int | None = None
    standardize: bool = False
    dropout: float | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    backend: Literal["auto", "kernel", "triton", "reference"] = "auto"
    channels_last: bool = True
    device: str = "auto"
    check_steps: int | None = None
    capture: bool = False
    task: str = tasks.DEFAULT
    options: Any = None
    seeds: Seeds = field(default_factory=Seeds)

    def __post_init__(self) -> None:
        for name in _COUNTS:
            _require(self, name, lambda value: value >= 1, "at least 1")
        for name in ("learning_rate", "clip_norm"):
            _require(self, name, lambda value: 0 < value < math.inf, "above 0")
        for name in ("decay", "norm_eps", "weight_decay", "warmup_epochs"):
            _require(self, name, lambda value: 0 <= value < math.inf, "0 or above")
        for name in ("momentum", "dropout"):
            _require(self, name, lambda value: 0 <= value < 1, "in [0, 1)")
        _require(self, "norm_momentum", lambda value: 0 <= value <= 1, "in [0, 1]")
        _require(self, "step_factor", lambda value: 0 < value <= 1, "in (0, 1]")
        kind = tasks.options_of(self.task)
        if self.options is None and kind is not None:
            object.__setattr__(self, "options", kind())
        if self.options is not None and type(self.options) is not kind:
            wanted = "none" if kind is None else f"a {kind.__name__}"
            raise UserError(f"the options of task {self.task} must be {wanted}: got {self.options!r}")
        _require(self, "warmup_epochs", lambda value: value < self.epochs, f"below epochs={self.epochs}")

    def check_used(self) -> None:
        """Raises UserError for an option that the others leave without effect, as a person may have meant another."""
        if self.schedule != "decay" and self.decay:
            raise UserError(
                f"decay={self.decay:g} is of schedule=decay: got schedule={self.schedule}; leave decay out, or say "
                "weight_decay if the parameters are to decay"
            )
        if self.schedule != "step" and self.step_epochs is not None:
            raise UserError(
                f"step_epochs={self.step_epochs} is of schedule=step: got schedule={self.schedule}; "
                "say schedule=step, or leave step_epochs out"
            )

    def resolved(
        self,
        *,
        precision: Literal["fp32", "bf16"],
        grouped: bool,
        eps: float,
        backend: Literal["kernel", "reference"] = "reference",
    ) -> TrainConfig:
        """Every default that depends on another field or on the machine filled in: what really runs.

        precision, backend: what `auto` means on this machine. grouped, eps: whether the layer has group statistics, and
        its own epsilon.
        """
        sgd = self.optimizer == "sgd"
        stepped = self.schedule == "step"
        report = self.model == REPORT_MODEL
        return replace(
            self,
            plain_norms="keep" if report else self.plain_norms,
            dropout=REPORT_DROPOUT if report and self.dropout is None else self.dropout,
            groups=self.groups if grouped else None,
            norm_eps=self.norm_eps if self.norm_eps is not None else eps,
            learning_rate=self.learning_rate if self.learning_rate is not None else (1e-2 if sgd else 1e-3),
            decay=_decay(self),
            step_epochs=(self.step_epochs or max(1, self.epochs // 3)) if stepped else None,
            step_factor=self.step_factor if stepped else TrainConfig.step_factor,
            momentum=self.momentum if sgd else 0.0,
            precision=precision if self.precision == "auto" else self.precision,
            backend=backend if self.backend == "auto" else self.backend,
        )


_COUNTS = (
    *("groups", "epochs", "batch_size", "steps_per_epoch", "step_epochs", "check_steps"),
    *("train_images", "test_images", "validation_images"),
)


def _decay(config: TrainConfig) -> float:
    if config.schedule != "decay":
        return 0.0
    if config.decay is not None:
        return config.decay
    return 1e-2 / config.epochs if config.optimizer == "sgd" else 0.0


def _require(config: TrainConfig, name: str, holds: Any, must: str) -> None:
    value = getattr(config, name)
    if value is not None and not holds(value):
        raise UserError(f"{name} must be {must}: got {name}={value}")


def not_identity(options: type[Any] | None) -> tuple[str, ...]:
    """NOT_IDENTITY, and those options of a task that change as little: fields with metadata {"identity": False}."""
    own = fields(options) if options is not None else ()
    return (*NOT_IDENTITY, *(f"options.{one.name}" for one in own if not one.metadata.get("identity", True)))


def identity(options: Any) -> dict[str, Any]:
    """A task's options, without those that are no part of what a run is."""
    left_out = not_identity(type(options)) if options is not None else ()
    given = asdict(options) if options is not None else {}
    return {name: value for name, value in given.items() if f"options.{name}" not in left_out}


def _unusual(options: Any) -> dict[str, Any]:
    """Those that are not at their defaults: where a task gets one more, its runs keep their names."""
    usual = identity(type(options)()) if options is not None else {}
    return {name: value for name, value in identity(options).items() if value != usual[name]}


def run_name(config: TrainConfig, data_fingerprint: str) -> str:
    """Folder name of a resolved config on given data: what a person looks for, then the hash of everything."""
    content = {
        key: value
        for key, value in (asdict(config) | {"options": _unusual(config.options)}).items()
        if key not in NOT_IDENTITY and not (key in YOUNGER and value == YOUNGER[key])
    }
    content["data"] = data_fingerprint
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    model = "" if config.model == REPORT_MODEL else config.model.replace(":", "-")
    parts = [
        "" if config.task == tasks.DEFAULT else config.task,
        model,
        config.layer,
        f"g{config.groups}" if config.groups else "",
        config.optimizer,
        "aug" * config.augment,
    ]
    return "-".join([part for part in parts if part] + [digest])
