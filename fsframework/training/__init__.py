"""Training: trainer, step, distributed processes, optimizer, CUDA graphs."""
