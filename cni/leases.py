"""Addresses in use, one file each, in the directory format of the reference host-local plugin.

    <data dir>/<network>/
        lock                   flock(2): held for every look and change
        10.1.0.5               who has the address: container id, CR LF, interface name
        last_reserved_ip.0     where the search goes on, for each set of ranges

Other programs (the reference plugin, our own run as a program) share the directory, so the files are the truth. What
they hold is remembered for as long as the directory's time stamp stands still: a pod costs a few system calls and not
a read of every other pod's file. Should the memory be wrong all the same (time stamps have a grain), nothing is given
twice, because a lease appears by link(2), which fails when the file is there.

A lease appears with its content. The reference plugin creates the file and then writes it: killed in between, it leaves
an empty file that belongs to nobody and is never released.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from cni.errors import TryAgainLater
from runtime.linux.files import read_limited

LINE_BREAK: Final = "\r\n"
LAST_PREFIX: Final = "last_reserved_ip."
LOCK_SECONDS: Final = 10.0
LOCK_POLL_SECONDS: Final = 0.002
FILE_LIMIT: Final = 4096

Owner = tuple[str, str]


class LeaseStore:
    """The leases of one network. Every method but locked() is for inside `with store.locked()`."""

    def __init__(self, data_dir: str | Path, network: str) -> None:
        self.directory = f"{data_dir}/{network}"
        self._threads = threading.Lock()
        self._lock_fd = -1
        self._files: dict[str, Owner] = {}
        self._known_at: tuple[int, int] | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory; raises TryAgainLater when another program does not let go of it."""
        if not self._threads.acquire(timeout=LOCK_SECONDS):
            raise TryAgainLater(f"{self.directory}: locked by another thread for {LOCK_SECONDS:g} s")
        try:
            self._acquire()
            try:
                self._look()
                yield
                self._known_at = self._stamp()
            except BaseException:
                self._known_at = None
                raise
            finally:
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def close(self) -> None:
        """Close the lock file."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def is_free(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether nobody is known to have it."""
        return str(address) not in self._files

    def addresses(self) -> list[IPv4Address | IPv6Address]:
        """The addresses in use."""
        return [address for name in self._files if (address := _address(name)) is not None]

    def owners(self) -> set[Owner]:
        """Everybody who has an address."""
        return set(self._files.values())

    def held_by(self, owner: Owner) -> list[IPv4Address | IPv6Address]:
        """The addresses of one owner."""
        return [address for name in self._names(owner) if (address := _address(name)) is not None]

    def reserve(self, address: IPv4Address | IPv6Address, owner: Owner) -> bool:
        """Give an address to an owner; False when somebody has it already."""
        name = str(address)
        temporary = f"{self.directory}/.{os.getpid()}.{threading.get_ident()}"
        _write(temporary, LINE_BREAK.join(owner))
        try:
            os.link(temporary, f"{self.directory}/{name}")
        except FileExistsError:
            self._files[name] = self._read_owner(name)
            return False
        finally:
            os.unlink(temporary)
        self._files[name] = owner
        return True

    def release(self, owner: Owner) -> list[IPv4Address | IPv6Address]:
        """Take back everything that an owner has; returns the addresses."""
        released = self.held_by(owner)
        for name in self._names(owner):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.directory}/{name}")
            self._files.pop(name, None)
        return released

    def last(self, range_id: int) -> IPv4Address | IPv6Address | None:
        """The address given last from a set of ranges."""
        try:
            text = read_limited(f"{self.directory}/{LAST_PREFIX}{range_id}", FILE_LIMIT)
        except FileNotFoundError:
            return None
        return _address(text.decode("ascii", "replace").strip())

    def set_last(self, range_id: int, address: IPv4Address | IPv6Address) -> None:
        """Remember the address given last."""
        _write(f"{self.directory}/{LAST_PREFIX}{range_id}", str(address))

    def _names(self, owner: Owner) -> list[str]:
        # Versions of the plugin before 0.7 wrote the container id alone.
        return [name for name, found in self._files.items() if found in (owner, (owner[0], ""))]

    def _acquire(self) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            if self._lock_fd < 0:
                self._lock_fd = self._open_lock()
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TryAgainLater(
                        f"{self.directory}/lock is held by another program for more than {LOCK_SECONDS:g} s",
                        f"find it with: fuser {self.directory}/lock",
                    ) from None
                time.sleep(LOCK_POLL_SECONDS)
                continue
            if self._is_current():
                return
            self.close()  # the directory was removed and made anew while the file was open

    def _open_lock(self) -> int:
        flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(f"{self.directory}/lock", flags, 0o600)
        except FileNotFoundError:
            os.makedirs(self.directory, mode=0o755, exist_ok=True)
            return os.open(f"{self.directory}/lock", flags, 0o600)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._lock_fd), os.stat(f"{self.directory}/lock"))
        except FileNotFoundError:
            return False

    def _stamp(self) -> tuple[int, int]:
        info = os.stat(self.directory)
        return info.st_ino, info.st_mtime_ns

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._known_at:
            return
        self._files = {}
        for name in os.listdir(self.directory):
            if name != "lock" and not name.startswith(LAST_PREFIX):
                self._files[name] = self._read_owner(name)

    def _read_owner(self, name: str) -> Owner:
        try:
            text = read_limited(f"{self.directory}/{name}", FILE_LIMIT).decode("utf-8", "replace").strip()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL, errno.EFBIG):
                raise
            return "", ""
        container_id, _, ifname = text.partition("\n")
        return container_id.strip(), ifname.strip()


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _write(path: str, text: str) -> None:
    # Written over, and not emptied first: ext4 brings a file that was emptied to the disk as soon as it is closed
    # (ext4(5), auto_da_alloc), and whoever empties it again waits for that.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, os.write(fd, text.encode()))
    finally:
        os.close(fd)
