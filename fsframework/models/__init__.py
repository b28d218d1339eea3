"""Store and load trained methods: run directories, model files and ONNX runtimes."""
