"""Resource limits of other processes: proc_pid_limits(5), which root may read of anybody.

prlimit(2) takes CAP_SYS_RESOURCE for a process of another user, which a daemon in a container lacks.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from runtime.linux.files import read_limited

#: RLIM64_INFINITY, as OCI documents write it too.
UNLIMITED = (1 << 64) - 1

_FILE_LIMIT = 64 * 1024
#: The first column is padded to this width, since its names have spaces.
_NAME_WIDTH = 26
_NAMES = {
    "Max cpu time": "RLIMIT_CPU",
    "Max file size": "RLIMIT_FSIZE",
    "Max data size": "RLIMIT_DATA",
    "Max stack size": "RLIMIT_STACK",
    "Max core file size": "RLIMIT_CORE",
    "Max resident set": "RLIMIT_RSS",
    "Max processes": "RLIMIT_NPROC",
    "Max open files": "RLIMIT_NOFILE",
    "Max locked memory": "RLIMIT_MEMLOCK",
    "Max address space": "RLIMIT_AS",
    "Max file locks": "RLIMIT_LOCKS",
    "Max pending signals": "RLIMIT_SIGPENDING",
    "Max msgqueue size": "RLIMIT_MSGQUEUE",
    "Max nice priority": "RLIMIT_NICE",
    "Max realtime priority": "RLIMIT_RTPRIO",
    "Max realtime timeout": "RLIMIT_RTTIME",
}


class Limit(NamedTuple):
    """Both in the unit of getrlimit(2), UNLIMITED for none."""

    soft: int
    hard: int


def read_rlimits(pid: int | str) -> dict[str, Limit]:
    """The limits of a process (or "self") by name, RLIMIT_NOFILE say.

    Raises FileNotFoundError or ProcessLookupError when it has ended, OSError.
    """
    lines = os.fsdecode(read_limited(f"/proc/{pid}/limits", _FILE_LIMIT)).splitlines()[1:]
    columns = ((line[:_NAME_WIDTH].rstrip(), line[_NAME_WIDTH:].split()) for line in lines)
    return {_NAMES.get(name, name): Limit(_number(soft), _number(hard)) for name, (soft, hard, *_) in columns}


def _number(text: str) -> int:
    return UNLIMITED if text == "unlimited" else int(text)
