"""Write crops as webdataset shards: tar files of a fixed number of crops, for collections of millions.

webdataset (extra [shards]) always runs in its secure mode, in which it neither unpickles nor starts programs. Equal
crops yield equal shards. The dataset `face-folder` reads them.
"""

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fsframework.core.errors import UserError


def write_shards(folder: Path, crops: Iterable[tuple[str, Path]], count: int) -> int:
    """Write crops to faces-000000.tar, faces-000001.tar and so on, and return the number of shards.

    Parameters
    ----------
    folder:
        The output folder.
    crops:
        Pairs of a name, PERSON/KEY.png without further dots in KEY, and the crop's file.
    count:
        Crops in each shard; the last one may hold fewer.

    Raises
    ------
    UserError
        webdataset is not installed.
    OSError
        A file cannot be read or written.
    """
    webdataset, written = load_webdataset(), 0
    remaining = iter(crops)
    while batch := list(itertools.islice(remaining, count)):
        with (folder / f"faces-{written:06}.tar").open("wb") as file:
            with webdataset.TarWriter(file, encoder=False, mtime=0, format="PAX_FORMAT") as shard:
                for name, crop in batch:
                    key, _, extension = name.rpartition(".")
                    shard.write({"__key__": key, extension: crop.read_bytes()})
            file.flush()
            os.fsync(file.fileno())
        written += 1
    return written


def load_webdataset() -> Any:
    """Return the module webdataset in its secure mode. Raise UserError if it is not installed."""
    os.environ["WDS_SECURE"] = "1"  # read when webdataset is imported
    try:
        import webdataset  # type: ignore[import-untyped]
    except ImportError:
        raise UserError("webdataset is not installed; try: pip install 'fsframework[shards]'") from None
    webdataset.utils.enforce_security = True  # in case it was imported earlier
    return webdataset
