"""Read and write images and videos, convert them to tensors and back, and draw grids and labels."""
