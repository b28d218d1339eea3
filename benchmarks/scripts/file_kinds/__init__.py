"""Kinds of pictures and films that people bring, made by scripts, each with a check of what a swap makes of it."""
