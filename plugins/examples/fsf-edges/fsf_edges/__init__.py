"""A plugin for fsframework: a loss on outlines."""

from fsf_edges.edges import Edges
from fsframework import Loss, hookimpl


@hookimpl
def register_losses() -> list[type[Loss]]:
    return [Edges]
