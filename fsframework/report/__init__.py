"""Write reports of runs and comparisons as HTML pages."""
