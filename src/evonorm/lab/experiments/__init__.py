"""Experiments as data, from their axes to their listing."""
