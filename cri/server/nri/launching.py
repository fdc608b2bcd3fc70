"""Plugins that are installed on the node and started with it: /opt/nri/plugins/NN-name.

Such a plugin finds its connection as file descriptor 3 and its index and name in its environment. When crid goes, so
does the connection; a plugin that does not end with it is ended when crid stops, and by the kernel when crid is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from pathlib import Path
from typing import Final

from cri.server.settings import ConfigError
from runtime.linux.commands import mortal
from runtime.linux.files import read_limited

NAME: Final = re.compile(r"([0-9]{2})-([A-Za-z0-9_.+-]{1,128})")
CONFIG_LIMIT: Final = 1 << 20
END_SECONDS: Final = 2.0
PLUGIN_FD: Final = 3


def installed_plugins(directory: Path, configs: Path) -> list[tuple[Path, str, str, str]]:
    """(path, index, name, configuration) of each executable file; no directory is no plugin.

    Raises ConfigError for an executable that is not named like a plugin, OSError.
    """
    try:
        entries = sorted(directory.iterdir())
    except FileNotFoundError:
        return []
    found = []
    for path in entries:
        if not path.is_file() or not os.access(path, os.X_OK):
            continue
        if (match := NAME.fullmatch(path.name)) is None:
            raise ConfigError(f"{path}: an NRI plugin is named NN-NAME, two digits first; rename it or take it away")
        found.append((path, match[1], match[2], _config(configs, match[1], match[2])))
    return found


def _config(directory: Path, index: str, base: str) -> str:
    for name in (f"{index}-{base}.conf", f"{base}.conf"):
        with contextlib.suppress(FileNotFoundError):
            return read_limited(str(directory / name), CONFIG_LIMIT).decode()
    return ""


class Launched:
    """A process that we started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    async def end(self) -> None:
        """Wait shortly for its end, which its closed connection asks for, then kill it."""
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._pidfd, gone.set)
        try:
            if not await _within(END_SECONDS, gone):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                await _within(END_SECONDS, gone)  # one that hangs in the kernel is left to whoever inherits it
            self._reap()
        finally:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)

    def _reap(self) -> None:
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def launch(path: Path, index: str, base: str) -> tuple[Launched, socket.socket]:
    """Start a plugin; returns it with our end of its connection. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    environment = {
        "NRI_PLUGIN_NAME": base,
        "NRI_PLUGIN_IDX": index,
        "NRI_PLUGIN_SOCKET": str(PLUGIN_FD),
        "PATH": os.defpath,
    }
    # posix_spawn makes no copy of this process; all our fds are close-on-exec but the one that is handed over.
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, theirs.fileno(), PLUGIN_FD)]
    try:
        with theirs:
            command = mortal([str(path)])
            pid = os.posix_spawnp(command[0], command, environment, file_actions=actions, setsid=True)
    except BaseException:
        ours.close()
        raise
    return Launched(pid), ours
