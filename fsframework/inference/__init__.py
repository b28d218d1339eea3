"""Face swapping in images and videos."""
