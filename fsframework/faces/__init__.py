"""Align, detect in videos, track, select, mask, match colours and paste faces."""
