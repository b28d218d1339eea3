"""Swapping faces in pictures and videos."""
