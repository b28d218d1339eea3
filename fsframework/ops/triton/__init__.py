"""Provide kernels in Triton for GPUs."""
