"""Contract checks for plugin authors, a pytest plugin, the scaffold of a new plugin."""
