"""Contracts: errors, types, component base classes, hook specifications, registry, Swapper."""
