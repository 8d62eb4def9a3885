"""What is synthesis' own in a configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from evonorm.lab.errors import UserError

# What every figure of samples says of itself.
NOTE = "features of a network trained here, not Inception's: not comparable with published FID or IS"


@dataclass(frozen=True)
class SynthesisOptions:
    """How BigGAN is trained, and how its samples are judged; by default as its authors' script for CIFAR-10 has it.

    Args:
        width: what all widths of both networks are multiples of; those of 32x32 pixels are four times as wide.
        generator_every: steps of the discriminator to one of the generator.
        generator_rate: learning rate of the generator, where it is not the discriminator's, which is learning_rate.
        accumulate: parts a batch is taken in, one after the other, so that it may be larger than memory.
        average: weight of what was before in the moving average of the generator, whose samples are judged; it rises
            to that as (1 + steps) / (10 + steps).
        truncation: of the noise that samples are drawn from, in deviations; default: none.
        judge_epochs: epochs of the classifier whose features judge samples; it is a run of its own, beside these.
        judge_images: its training images; default: all.
        inception: file of the standard Inception weights; then the finished run, and one that was finished before, gets
            the standard FID and Inception score. Needs evonorm[fid].
        fid_samples: samples that these are taken of; default: as many as there are training images.
    """

    width: int = 64
    generator_every: int = 4
    generator_rate: float | None = None
    accumulate: int = 1
    average: float = 0.9999
    truncation: float | None = None
    judge_epochs: int = 10
    judge_images: int | None = None
    inception: str | None = field(default=None, metadata={"identity": False})
    fid_samples: int | None = field(default=None, metadata={"identity": False})

    def __post_init__(self) -> None:
        for name in ("width", "generator_every", "accumulate", "judge_epochs", "judge_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1: got {name}={value}")
        for name in ("generator_rate", "truncation"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} must be above 0: got {name}={value}")
        if self.fid_samples is not None and self.fid_samples < 10:
            raise UserError(f"fid_samples must be at least 10, one a part of the score: got {self.fid_samples}")
        if self.fid_samples is not None and self.inception is None:
            raise UserError(f"fid_samples={self.fid_samples} is of inception: give that, or leave fid_samples out")
        if not 0 <= self.average < 1:
            raise UserError(f"average must be in [0, 1): got average={self.average}")
