"""A plugin for fsframework: a generator that modulates weights by the identity."""

from fsf_modulated.modulated import ModulatedGenerator
from fsframework import Generator, hookimpl


@hookimpl
def register_generators() -> list[type[Generator]]:
    return [ModulatedGenerator]
