"""How the process gets its memory from the system."""

import ctypes
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's <malloc.h>
_ALL = 2**31 - 1  # the largest that glibc takes


def retain_freed_memory() -> bool:
    """Keep freed memory for the next tensor instead of giving it back. Returns whether the system could be told.

    glibc returns blocks of 32 MB and more at once and asks for fresh ones, whose every page the kernel clears: on two
    cores an element-wise operation on 34 MB took 13 ms, of which 2 were its own. Tensors of one step are as large as
    those of the last, so nothing is lost.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, _ALL))
