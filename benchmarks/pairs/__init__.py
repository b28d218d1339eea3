"""Lists of pairs: who is swapped with whom."""
