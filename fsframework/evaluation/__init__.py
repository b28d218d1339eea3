"""Evaluate methods: benchmarks, baselines, bootstrap intervals, protocols and comparisons."""
