"""Reports of runs and comparisons as HTML pages."""
