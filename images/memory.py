"""The C library's memory, which a pull uses in large pieces from many threads, and keeps for ever if it is let.

glibc gives each thread an arena of its own, and the free pages between what still lives in one are not given back:
a daemon that had pulled 400 MB four times stayed 65 MB larger. With two arenas for all, trimmed after each pull, it
is as small as before. mallopt(3), malloc_trim(3).
"""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8
ARENAS = 2

_libc = ctypes.CDLL(None)
_mallopt = getattr(_libc, "mallopt", None)  # glibc's; other C libraries neither have it nor need it
_malloc_trim = getattr(_libc, "malloc_trim", None)


def share_arenas() -> None:
    """For the whole process, as far as its threads have no arenas yet."""
    if _mallopt is not None:
        _mallopt(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return free pages to the kernel; takes about a millisecond."""
    if _malloc_trim is not None:
        _malloc_trim(0)
