"""The layers as functions without state; their home is evonorm.layers.functional."""

from evonorm.layers.functional import norm_act

__all__ = ["norm_act"]
