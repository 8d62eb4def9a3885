"""Fused kernels for the CPU, in C++: loading them, and the two calls."""
