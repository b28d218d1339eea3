"""Provide files, YAML, weights, progress, environment, devices, executors, job shards and prefetching."""
