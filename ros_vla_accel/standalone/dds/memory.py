"""Keeps the memory of images in the process, instead of handing it back after each one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

# mallopt(3), and the sizes in bytes: 32 MiB is the largest mmap threshold that glibc takes.
_SETTINGS = {
    "MALLOC_TRIM_THRESHOLD_": (-1, 256 << 20),
    "MALLOC_TOP_PAD_": (-2, 16 << 20),
    "MALLOC_MMAP_THRESHOLD_": (-3, 32 << 20),
}


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Tells glibc's malloc to reuse what images used; returns what was set, by variable.

    By default each 640x480 image is mapped, faulted in page by page and unmapped again, on both
    ends, and a joint state behind two images waits for it (`bench ros`, docs/benchmarks.md). What
    the user's environment sets stays. Other C libraries have no mallopt: nothing is set.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return [
        variable
        for variable, (number, size) in _SETTINGS.items()
        if mallopt is not None and variable not in environment and mallopt(number, size) == 1
    ]
