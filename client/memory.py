"""Freed memory stays with the process: a training step on the CPU asks for the same large blocks again and again.

glibc gives large blocks back to the system at once, and the system clears each of their pages anew at the next step:
38,000 page faults a step of ResNet-18 at 224 px and batch 16, a sixth of its time (LOG.md). The price is that a process
that trained keeps its largest step's memory until it ends.
"""

from __future__ import annotations

__all__ = ["keep_freed_memory"]

import ctypes
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of malloc.h; see mallopt(3)."""
_LARGE, _PAD = 2**31 - 1, 2**26


@cache
def keep_freed_memory() -> bool:
    """Tell glibc, once for the whole process; False where the C library is another one."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE), (_TOP_PAD, _PAD))
    return all(mallopt(name, value) == 1 for name, value in settings)
