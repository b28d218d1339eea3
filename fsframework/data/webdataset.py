"""Crops as webdataset's shards: tar files of so many pictures each, for collections of millions.

Written by webdataset (extra [shards]), always in its secure mode, in which it neither unpickles nor starts programs.
Equal crops make equal shards. The data set `face-folder` reads them.
"""

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fsframework.core.errors import UserError


def write_shards(folder: Path, crops: Iterable[tuple[str, Path]], count: int) -> int:
    """Write faces-000000.tar and so on.

    Parameters
    ----------
    folder:
        Where they go.
    crops:
        Names, PERSON/KEY.png without further dots in KEY, and the pictures' files.
    count:
        Crops of a shard; the last one may hold fewer.

    Returns
    -------
    How many shards were written.

    Raises
    ------
    UserError
        webdataset is not installed.
    OSError
        A file cannot be read or written.
    """
    webdataset, written = load_webdataset(), 0
    left = iter(crops)
    while batch := list(itertools.islice(left, count)):
        with (folder / f"faces-{written:06}.tar").open("wb") as file:
            with webdataset.TarWriter(file, encoder=False, mtime=0, format="PAX_FORMAT") as shard:
                for name, crop in batch:
                    key, _, kind = name.rpartition(".")
                    shard.write({"__key__": key, kind: crop.read_bytes()})
            file.flush()
            os.fsync(file.fileno())
        written += 1
    return written


def load_webdataset() -> Any:
    """The package, in its secure mode. Raises UserError if it is not installed."""
    os.environ["WDS_SECURE"] = "1"  # which it reads when it is imported
    try:
        import webdataset  # type: ignore[import-untyped]
    except ImportError:
        raise UserError("webdataset is not installed; try: pip install 'fsframework[shards]'") from None
    webdataset.utils.enforce_security = True  # somebody may have imported it before
    return webdataset
