"""Images and videos in and out, conversion to tensors and back, drawing."""
