"""Provide fast operators, each with a fallback in plain torch."""
