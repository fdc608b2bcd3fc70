"""The console socket: where an external runtime delivers the master of a terminal that it has made.

The runtime connects to `--console-socket PATH` and sends one fd with SCM_RIGHTS (runc, docs/terminals.md). It does so
before its command ends, so nobody has to wait: when the command has ended, the fd is there or never comes.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

from runtime.linux.fds import Fd

NAME_MAX: Final = 4096


class ConsoleSocket:
    """A listening socket in the bundle, for one terminal; its path is `name`, relative to the bundle."""

    def __init__(self, bundle: str, name: str) -> None:
        """Listen. Raises OSError."""
        self.name = name
        self._path = f"{bundle}/{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._socket.bind(f"/proc/self/fd/{directory}/{name}")  # a name of any depth, in 108 bytes (unix(7))
            self._socket.listen(1)
        except BaseException:
            self._socket.close()
            raise
        finally:
            os.close(directory)

    def take(self) -> Fd | None:
        """The terminal's master, or None when none was delivered; the socket is gone afterwards."""
        try:
            connection, _ = self._socket.accept()
            with connection:
                connection.setblocking(False)
                _, fds, _, _ = socket.recv_fds(connection, NAME_MAX, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        finally:
            self.close()
        return Fd(fds[0]) if fds else None

    def close(self) -> None:
        """Stop listening and remove the socket; a second call does nothing."""
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
