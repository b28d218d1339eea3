"""Formats of images that Pillow reads with a library of an extra: HEIC and JPEG XL.

Their readers are registered with Pillow at first use, where they are installed. Both check the size of an image before
its pixels are decoded, and turn it upright themselves.
"""

from functools import lru_cache
from importlib import import_module
from typing import NamedTuple

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_JXL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


class OptionalFormat(NamedTuple):
    """A format, the module that reads it, and its extra."""

    name: str  # Pillow's
    title: str
    module: str
    register: str  # function of the module
    extra: str
    suffixes: tuple[str, ...]


OPTIONAL = (
    OptionalFormat("HEIF", "HEIC", "pillow_heif", "register_heif_opener", "heic", (".heic", ".heif", ".hif")),
    OptionalFormat("JXL", "JPEG XL", "pylibjxl.pillow_plugin", "register_pillow", "jxl", (".jxl",)),
)


@lru_cache
def registered() -> tuple[str, ...]:
    """Return Pillow's names of the optional formats that can be read, after registering their readers."""
    names = []
    for each in OPTIONAL:
        try:
            getattr(import_module(each.module), each.register)()
        except ImportError:
            continue
        names.append(each.name)
    return tuple(names)


def missing_format(start: bytes) -> OptionalFormat | None:
    """Return the format of a file with these first bytes, at least 12, if its reader is not installed."""
    heif, jxl = OPTIONAL
    found = None
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        found = heif
    elif start.startswith(_JXL_STARTS):
        found = jxl
    return None if found is None or found.name in registered() else found
