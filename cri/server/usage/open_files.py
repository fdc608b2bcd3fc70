"""Open files of a container's processes, counted through /proc; whatever vanishes meanwhile counts no more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.linux.rlimits import UNLIMITED, read_rlimits

#: Processes of one container whose open files are counted; beyond, the count is a lower bound.
MAX_PROCESSES = 512


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """Of all processes together; `soft_limit` is that of the first one, -1 for none."""

    descriptors: int = 0
    sockets: int = 0
    soft_limit: int = 0


def open_files(pids: Sequence[int]) -> OpenFiles:
    """`pids` in the host's numbers, the container's first process first."""
    descriptors = sockets = 0
    for pid in pids[:MAX_PROCESSES]:
        directory = f"/proc/{pid}/fd"
        try:
            names = os.listdir(directory)
        except OSError:  # it has exited
            continue
        descriptors += len(names)
        sockets += sum(_is_socket(f"{directory}/{name}") for name in names)
    return OpenFiles(descriptors, sockets, _soft_limit(pids[0]) if pids else 0)


def _is_socket(link: str) -> bool:
    try:
        return os.readlink(link).startswith("socket:")
    except OSError:  # closed meanwhile
        return False


def _soft_limit(pid: int) -> int:
    try:
        soft = read_rlimits(pid)["RLIMIT_NOFILE"].soft
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return -1 if soft == UNLIMITED else soft
