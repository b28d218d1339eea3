"""A plugin framework for face swapping: recipes assemble components that plugins provide."""

import pluggy

hookimpl = pluggy.HookimplMarker("fsframework")

__all__ = ["hookimpl"]
