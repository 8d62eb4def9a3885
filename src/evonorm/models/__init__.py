"""Networks that take their normalization-activation layer by name."""

from evonorm.models.biggan import BigGAN
from evonorm.models.mini_inception import MiniInception
from evonorm.models.zoo import build

__all__ = ["BigGAN", "MiniInception", "build"]
