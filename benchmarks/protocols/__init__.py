"""Protocols: what is measured on what, to be cited by name and version."""
