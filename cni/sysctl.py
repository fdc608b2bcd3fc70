"""Settings of the host's network that pods need, read and changed through /proc/sys (ip-sysctl.rst of the kernel)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cni.errors import CniError

ROOT: Final = Path("/proc/sys")
VALUE_LIMIT: Final = 256


def read(name: str) -> str | None:
    """The value of "net/ipv4/ip_forward", or None when this kernel or interface has no such setting."""
    try:
        fd = os.open(ROOT / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, VALUE_LIMIT).decode().strip()
    finally:
        os.close(fd)


def write(name: str, value: str) -> None:
    """Change a setting; raises CniError that says what to do where /proc/sys cannot be written."""
    try:
        fd = os.open(ROOT / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise CniError(
            f"sysctl {name.replace('/', '.')} cannot be set to {value}: {error.strerror}",
            "set it on the host before the node starts (sysctl.d(5)), or give the daemon a writable /proc/sys",
        ) from error


def write_if_there(name: str, value: str) -> None:
    """Change a setting unless it has this value or does not exist (a kernel without IPv6 has none of its settings)."""
    if read(name) not in (None, value):
        write(name, value)
