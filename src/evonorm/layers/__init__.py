"""Normalization-activation layers; this wing needs torch alone."""
