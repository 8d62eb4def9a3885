"""Networks that take their normalization-activation layer by name."""

from evonorm.models.mini_inception import MiniInception

__all__ = ["MiniInception"]
