"""The host as an escape would change it, looked at before and after an attack.

    with unharmed(directory, crid):
        ...

`directory` is a place of the host that an attack aims at: its files, inodes, modes and times must stay. So must what
the kernel holds for the whole host, and the programs that containers can see the runtime run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from runtime.linux.cgroups import Cgroup
from tests.support.crid import Crid

TEXT = "untouched"
GLOBAL_SETTINGS = (
    "kernel/core_pattern",
    "kernel/hostname",
    "kernel/shmmax",
    "kernel/sysrq",
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/console", "/dev/ptmx")
FILES = ("/etc/passwd", "/etc/hosts", "/etc/resolv.conf")


def make_canary(directory: Path) -> Path:
    """A directory with a file that nobody may touch."""
    directory.mkdir()
    (directory / "file").write_text(TEXT)
    (directory / "file").chmod(0o640)
    return directory


def _tree(directory: Path) -> list[tuple[object, ...]]:
    found = []
    for path in sorted((directory, *directory.rglob("*"))):
        status = path.lstat()
        kept = (status.st_ino, status.st_mode, status.st_nlink, status.st_uid, status.st_gid, status.st_mtime_ns)
        found.append((str(path), *kept))
    return found


def _host() -> dict[str, object]:
    places = [path for name in GLOBAL_SETTINGS if (path := Path("/proc/sys", name)).exists()]
    settings: dict[str, object] = {str(path): path.read_text() for path in places}
    devices = {path: (os.stat(path).st_rdev, os.stat(path).st_mode, os.stat(path).st_uid) for path in DEVICES}
    files = {path: (os.stat(path).st_mode, os.stat(path).st_size) for path in FILES}
    interpreter = hashlib.sha256(Path(sys.executable).resolve().read_bytes()).hexdigest()
    return settings | devices | files | {"interpreter": interpreter}


@contextlib.contextmanager
def unharmed(directory: Path, crid: Crid) -> Iterator[Path]:
    """Whatever the block does with pods of `crid`, the host is as before."""
    canary = make_canary(directory)
    before = _tree(canary), _host()
    yield canary
    assert (_tree(canary), _host()) == before
    assert (canary / "file").read_text() == TEXT
    assert str(canary) not in Path("/proc/self/mountinfo").read_text()
    assert crid.process is not None and crid.process.poll() is None, f"crid has ended:\n{crid.tail()}"


def leftovers(crid: Crid) -> list[str]:
    """What is left of pods when there are none any more: mounts, cgroups, processes, state."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{crid.base}/state" in line]
    found += [str(path) for path in (crid.state / "sandboxes").iterdir()]
    for directory in Cgroup(f"/{crid.bridge}").directories:
        found += [str(path) for path in Path(directory).glob("pod*/")]
    return found + [f"shim {pid}" for pid in filter(str.isdigit, os.listdir("/proc")) if _is_shim_of(pid, crid)]


def _is_shim_of(pid: str, crid: Crid) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/cwd").startswith(f"{crid.state}/sandboxes/")
    except OSError:  # it has ended, or it is a zombie that init reaps late
        return False
