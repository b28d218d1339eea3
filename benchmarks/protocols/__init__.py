"""Evaluation protocols: data, pairs and benchmarks, to be cited by name and version."""
