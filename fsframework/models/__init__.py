"""Trained methods on disk: run directories, model files, exported runtimes."""
