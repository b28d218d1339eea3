"""Define, override, build, check and document recipes."""
