"""Libraries and programs: those that the node cannot do without, and those that are used where they are there."""

from __future__ import annotations

import ctypes
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Final

from nodeagent.doctor.finding import Finding, judge

LIBRARIES: Final = {
    "libnftables.so.1": ("the default network has no masquerading and no host ports", "apt install libnftables1"),
    "libcap.so.2": ("no container starts: capabilities cannot be set", "apt install libcap2"),
    "libseccomp.so.2": ("no container starts: their seccomp profile cannot be compiled", "apt install libseccomp2"),
}
PROGRAMS: Final = {
    "busybox": ("no image for the demo: `nodeagent up --demo` needs it", "apt install busybox-static"),
    "mkfs.ext4": ("block volumes cannot be formatted", "apt install e2fsprogs"),
    "iptables": ("CNI plugins of others that use it do not work; ours do", "apt install iptables, if one needs it"),
}
OLDEST_PYTHON: Final = (3, 11)


def examine() -> list[Finding]:
    version = sys.version.split()[0]
    python = judge(
        "software", "python", sys.version_info[:2] >= OLDEST_PYTHON, version, "too old", "install 3.11 or later",
        fatal=True,
    )  # fmt: skip
    return [python, *_packages(), *_libraries(), *_programs()]


def _packages() -> Iterator[Finding]:
    """Everything that this distribution says it requires, but for extras."""
    try:
        required = metadata.requires("nodeagent") or []
    except metadata.PackageNotFoundError:
        yield judge("software", "nodeagent", False, "not installed", "it runs from a source tree", "pip install .")
        return
    for requirement in required:
        name, extra = re.match(r"[\w.-]+", requirement), "extra ==" in requirement
        if name is not None and not extra:
            version = _version(name[0])
            follows = "parts of the node do not start"
            remedy = f"pip install {name[0]}"
            yield judge("software", name[0], bool(version), version or "missing", follows, remedy, fatal=True)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _libraries() -> Iterator[Finding]:
    for name, (follows, remedy) in LIBRARIES.items():
        fatal = "no container" in follows
        try:
            ctypes.CDLL(name)
        except OSError as error:
            yield judge("software", name, False, str(error), follows, remedy, fatal=fatal)
        else:
            yield judge("software", name, True, "can be loaded", "", "")


def _programs() -> Iterator[Finding]:
    for name, (follows, remedy) in PROGRAMS.items():
        path = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin")
        yield judge("software", name, path is not None, path or "not found", follows, remedy)
