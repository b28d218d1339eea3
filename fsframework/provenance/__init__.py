"""Provenance: results are marked as synthetic, and the marks are verified."""
