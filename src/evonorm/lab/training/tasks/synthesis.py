"""Image synthesis: BigGAN, trained by hinge loss, its samples judged by the features of a network trained here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.training import optimizers
from evonorm.lab.training.config import REPORT_MODEL, TrainConfig
from evonorm.lab.training.seeding import generator
from evonorm.lab.training.stages import stage
from evonorm.lab.training.synthesis import fid, judge
from evonorm.lab.training.synthesis.options import NOTE
from evonorm.lab.training.synthesis.samples import Sampler, noise
from evonorm.lab.training.synthesis.scores import frechet, inception_style
from evonorm.lab.training.tasks import SYNTHESIS
from evonorm.lab.training.tasks.image_work import ImageData
from evonorm.lab.training.tasks.work import Pass, PassOf
from evonorm.models import BigGAN, biggan

JUDGE, MODEL = "judge.json", "biggan"
# BigGAN's Adam is without momentum.
BETAS = (0.0, 0.999)


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """mean max(0, 1 - D(real)) + mean max(0, 1 + D(made)). Source: Lim, Ye 2017, arXiv 1705.02894."""
    return F.relu(1 - real).mean() + F.relu(1 + made).mean()


def generator_loss(made: Tensor) -> Tensor:
    """-mean D(made)."""
    return -made.mean()


class Synthesis(ImageData):
    """A step is one of the discriminator and, every so often, one of the generator, on as many images of its own.

    model: `networks`, a BigGAN, and `average`, the moving average of its generator, whose samples are judged.
    """

    def __init__(self, *at: Any) -> None:
        super().__init__(*at)
        self.classes = len(self.dataset.classes)

    @classmethod
    def known(cls, model: str) -> str:
        """See Work; the default of every task stands for BigGAN."""
        if model not in (REPORT_MODEL, MODEL):
            raise ValueError(f"task={SYNTHESIS} trains {MODEL}: got model={model!r}; leave it out")
        return MODEL

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """See Work."""
        super().check(config)
        if config.optimizer != "adam":
            raise UserError(
                f"task={SYNTHESIS} is trained by Adam: got optimizer={config.optimizer}; say optimizer=adam"
            )
        for name in ("standardize", "dropout"):
            if getattr(config, name):
                raise UserError(f"{name} is not of task={SYNTHESIS}; leave it out")
        if config.options.inception is not None:
            fid.require(config.options.inception)

    def network(self) -> nn.Module:
        """See Work."""
        config, own, side = self.config, self.config.options, self.train_set.pixels.shape[-1]
        if side not in biggan.SIZES:
            sizes = ", ".join(map(str, biggan.SIZES))
            raise UserError(f"{MODEL} makes images of {sizes} pixels: got {side}; say --data NAME@64, of one of these")
        networks = BigGAN(
            self.classes,
            side,
            config.layer,
            width=own.width,
            groups=config.groups or 32,
            eps=config.norm_eps,
            momentum=config.norm_momentum,
            backend=config.backend,
            source=generator(config.seeds.model, "weights"),
        )
        # Buffers (running statistics, the vectors of spectral norm) are copied.
        average = AveragedModel(networks.generator, multi_avg_fn=self._blend)
        return nn.ModuleDict({"networks": networks, "average": average.requires_grad_(False)})

    def build(self, steps_per_epoch: int) -> None:
        """See Work; and makes the judge ready, and what it says of the images themselves."""
        own = self.config.options
        # Read before anything that takes long: they may be the wrong ones.
        self.inception = None if own.inception is None else fid.Inception(own.inception, self.device)
        self.model = self.placed(self.network())
        rate = self.config.learning_rate
        rates = {"discriminator": rate, "generator": own.generator_rate or rate}
        steps = {"discriminator": steps_per_epoch, "generator": max(1, steps_per_epoch // own.generator_every)}
        self.optimizers = {
            name: optimizers.make(
                replace(self.config, learning_rate=rate),
                self._networks.get_submodule(name),
                steps_per_epoch=steps[name],
                betas=BETAS,
            )
            for name, rate in rates.items()
        }
        asked = judge.config(self.config, epochs=own.judge_epochs, images=own.judge_images)
        self.judge = judge.ready(asked, self.dataset, self.folder.parent, self.device, self.stop)
        self.features, logits = self.judge(self.scaled(self.floats(self.test_set.pixels)))
        train, _ = self.judge(self.scaled(self.floats(self.train_set.first(len(self.features)).pixels)))
        said = {
            "run": self.judge.name,
            "accuracy": self.judge.accuracy,
            "distance_of_training_images": frechet(self.features, train),
            "score_of_validation_images": inception_style(logits),
            "note": NOTE,
        }
        run_files.write_json(self.folder / JUDGE, said)

    def scaled(self, images: Tensor) -> Tensor:
        """From [0, 1] to [-1, 1]."""
        return images * 2 - 1

    def update(self, chosen: Tensor, step: int) -> Pass:
        """See Work."""
        images, labels = self.batch(chosen, step)
        loss, _ = self._descend("discriminator", images, labels, step)
        sums = {"generator_loss": torch.zeros(()), "generator_images": torch.zeros(())}
        if (step + 1) % self.config.options.generator_every == 0:
            own, _ = self._descend("generator", images, labels, step)
            sums = {"generator_loss": own * len(labels), "generator_images": torch.tensor(float(len(labels)))}
            self._average.update_parameters(self._networks.generator)
        return loss, sums

    def training_pass(self, model: nn.Module, chosen: Tensor, step: int) -> Pass:
        """See Work: the discriminator's."""
        images, labels = self.batch(chosen, step)
        return next(self._passes("discriminator", images, labels, step, parts=1))(model)

    def measure(self, sums: Mapping[str, float], images: int) -> Mapping[str, float]:
        """See Work; of an epoch in which the generator had no step yet its loss is not known."""
        steps = sums.get("generator_images", 0)
        return {
            "loss": sums["loss"] / images,
            "generator_loss": sums["generator_loss"] / steps if steps else float("nan"),
        }

    def validate(self, epoch: int) -> Mapping[str, float]:
        """See Work: a sample of each validation image's class, judged; and the epoch's pictures."""
        sampler = self._sampler()
        judged = [self.judge(images) for images in sampler.of(self.test_set.labels)]
        features, logits = (torch.cat(parts) for parts in zip(*judged, strict=True))
        found = {"distance": frechet(self.features, features), "score": inception_style(logits)}
        sampler.write(self.folder, epoch, self._told(found))
        return found

    def finish(self) -> None:
        """See Work: the standard FID where its weights are given, in a file and in the captions of the last pictures.

        Of samples in the classes of the training images, in turn, to these images.
        """
        if self.inception is None:
            return
        sampler, labels = self._sampler(), self.train_set.labels
        count = self.config.options.fid_samples or len(labels)
        samples = sampler.of(labels.repeat(-(-count // len(labels)))[:count])
        found = fid.measured(self.inception, self.train_set.pixels, samples, self.stop)
        run_files.write_json(self.folder / fid.NAME, found)
        *_, last = run_files.read_metrics(self.folder)
        told = self._told({name: last[f"val_{name}"] for name in ("distance", "score")})
        sampler.write(self.folder, self.config.epochs, f"{told}; {fid.told(found)}")

    @classmethod
    def lacks(cls, config: TrainConfig, folder: Path) -> bool:
        """See Work."""
        wanted, path = config.options, folder / fid.NAME
        if wanted.inception is None:
            return False
        return not path.exists() or wanted.fid_samples not in (None, run_files.read_json(path).get("samples"))

    def _sampler(self) -> Sampler:
        seed, own = self.config.seeds.model, self.config.options
        return Sampler(self._average.module, seed, classes=self.classes, truncation=own.truncation)

    def _told(self, found: Mapping[str, float]) -> str:
        values = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
        return f"{self.config.layer}; {values}, by {NOTE}"

    @property
    def _networks(self) -> Any:
        return self.model.get_submodule("networks")

    @property
    def _average(self) -> Any:
        return self.model.get_submodule("average")

    def _descend(self, of: str, images: Tensor, labels: Tensor, step: int) -> Pass:
        networks = self._networks
        for name in self.optimizers:  # what the other does not learn from needs no gradient
            networks.get_submodule(name).requires_grad_(name == of)
        passes = self._passes(of, images, labels, step, parts=self.config.options.accumulate)
        try:
            return self.descend(networks, self.optimizers[of], *passes)
        finally:
            networks.requires_grad_(True)

    def _passes(self, of: str, images: Tensor, labels: Tensor, step: int, *, parts: int) -> Iterator[PassOf]:
        """A pass for each part of the batch, which gives its share of the mean loss of one of the networks.

        The noise of a step is the same however it is parted.
        """
        count = len(labels)
        source = generator(self.config.seeds.model, f"noise of the {of}", step)
        noises = noise(count, self._networks.generator.latent, source).to(self.device)
        classes = torch.randint(self.classes, (count,), generator=source).to(self.device)
        for chosen in torch.arange(count, device=self.device).chunk(parts):

            def of_part(networks: Any, chosen: Tensor = chosen) -> Pass:
                share, z, wanted = len(chosen) / count, noises[chosen], classes[chosen]
                with stage("forward"), self.autocast():
                    with torch.set_grad_enabled(of == "generator"):
                        made = networks.generator(z, wanted)
                    if of == "generator":
                        return share * generator_loss(networks.discriminator(made, wanted).float()), {}
                    met = torch.cat([images[chosen], made.to(images.dtype)])
                    judged = networks.discriminator(met, torch.cat([labels[chosen], wanted])).float()
                    return share * discriminator_loss(*judged.chunk(2)), {}

            yield of_part

    def _blend(self, averages: Any, newest: Any, steps: Any) -> None:
        decay = min(self.config.options.average, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(list(averages), list(newest), 1 - decay)
