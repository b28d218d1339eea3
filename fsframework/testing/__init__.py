"""Contract checks for plugin authors, a pytest plugin, and the scaffold of a new plugin."""
