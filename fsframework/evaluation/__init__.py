"""Benchmarks, baselines, bootstrap intervals, protocols, comparison of methods."""
