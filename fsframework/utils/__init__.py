"""Files, YAML, weights, progress, environment, devices, executors, job shards, prefetching."""
