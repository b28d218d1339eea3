"""Marking of results as synthetic, and its verification."""
