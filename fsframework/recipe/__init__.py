"""Recipes: schema, overrides, building, checking, reference."""
