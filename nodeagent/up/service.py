"""One daemon under the supervisor: started, ready by its own word (sd_notify), started again when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nodeagent.up.family import die_with_parent
from runtime.linux.notify import VARIABLE

#: Seconds before a daemon that died is started again; the first again once it has lived STEADY seconds.
PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY = 60.0
STOP_PATIENCE = 30.0
TAIL = 4096
_CREDENTIALS = struct.Struct("3i")


class StartFailed(Exception):
    """A daemon ended, or said nothing, before it was ready; the message ends with its last words."""


class Service:
    """`log` takes its stderr. `told` gets a line when it dies and when it is back."""

    def __init__(self, name: str, command: Sequence[str], log: Path, told: Callable[[str], None]) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.restarts = 0
        self._told = told
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()
        self._stopping = False
        self._begins = 0
        self._keeper: asyncio.Task[None] | None = None

    @property
    def child(self) -> subprocess.Popen[bytes] | None:
        """Its process, until somebody has taken the exit status."""
        return self._process if self._process is not None and self._process.returncode is None else None

    async def start(self, patience: float = 60.0) -> None:
        """Return when it is ready, and keep it running from then on. Raises StartFailed."""
        self._spawn()
        if not await self._is_ready(patience):
            how = "ended" if self._ended.is_set() else f"was not ready within {patience:.0f} s"
            await self.stop()
            raise StartFailed(f"{self.name} {how}; its last words, from {self.log}:\n{self.last_words()}")
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not heed it."""
        self._stopping = True
        if self._keeper is not None:
            self._keeper.cancel()
        if self._process is None or self._ended.is_set():
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._process.send_signal(number)
            try:
                async with asyncio.timeout(STOP_PATIENCE):
                    await self._ended.wait()
                return
            except TimeoutError:
                self._told(f"{self.name} does not heed {number.name}")

    def last_words(self) -> str:
        """Of this process, not of those that wrote to the log before."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._begins, log.seek(0, os.SEEK_END) - TAIL))
                text = log.read(TAIL).decode(errors="replace")
        except FileNotFoundError:
            text = ""
        return "\n".join(text.splitlines()[-12:]) or "(nothing)"

    async def _keep(self) -> None:
        tries, why = 0, ""
        while True:
            began = time.monotonic()
            await self._ended.wait()
            assert self._process is not None
            tries = 0 if time.monotonic() - began > STEADY else tries
            pause = PAUSES[min(tries, len(PAUSES) - 1)]
            why = why or f"ended with {_outcome(self._process.returncode)}"
            self._told(f"{self.name} {why}; pods go on; again in {pause:g} s")
            await asyncio.sleep(pause)
            tries += 1
            self.restarts += 1
            why = self._try_spawn()
            if await self._is_ready():
                self._told(f"{self.name} is back")

    async def _is_ready(self, patience: float | None = None) -> bool:
        """As soon as it is, or will not be: it has ended, or `patience` seconds are over."""
        ready, ended = (asyncio.create_task(event.wait()) for event in (self._ready, self._ended))
        try:
            await asyncio.wait({ready, ended}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (ready, ended):
                task.cancel()
        return self._ready.is_set()

    def _try_spawn(self) -> str:
        """Why that does not work, such as for want of memory; counts as a start that ended at once then."""
        try:
            self._spawn()
        except OSError as error:
            self._ended.set()
            return f"cannot be started ({error})"
        return ""

    def _spawn(self) -> None:
        self._ready.clear()
        self._ended.clear()
        address = f"@nodeagent-{os.getpid()}-{self.name}-{os.urandom(4).hex()}"
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        channel.bind("\0" + address[1:])
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._begins = log.tell()
            self._process = subprocess.Popen(
                self.command,
                env=os.environ | {VARIABLE: address},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C in the terminal is the supervisor's to handle; its death ends the daemons, and no pod.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._watch(channel, os.pidfd_open(self._process.pid))

    def _watch(self, channel: socket.socket, pidfd: int) -> None:
        loop = asyncio.get_running_loop()
        process, ended, ready = self._process, self._ended, self._ready
        assert process is not None

        def heard() -> None:
            words, sender = _received(channel)
            if sender == process.pid and b"READY=1" in words.split(b"\n"):
                ready.set()

        def died() -> None:
            loop.remove_reader(channel)
            loop.remove_reader(pidfd)
            channel.close()
            os.close(pidfd)
            process.wait()
            ended.set()

        loop.add_reader(channel, heard)
        loop.add_reader(pidfd, died)


def _received(channel: socket.socket) -> tuple[bytes, int]:
    """A message and the pid of its sender, as the kernel has it: an abstract socket is open to everybody on the host's
    network, containers included (SCM_CREDENTIALS, unix(7)).
    """
    words, ancillary, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) == _CREDENTIALS.size:
            return words, int(_CREDENTIALS.unpack(data)[0])
    return words, 0


def _outcome(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"status {code}"
