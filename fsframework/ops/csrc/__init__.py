"""Provide kernels in C, compiled at first use."""
