"""Starting the zygote, watching it, and starting it again.

The zygote is this Python run afresh, without threads and without anything that crid has imported. Its interpreter is
executed through a read-only, detached bind mount of the directory it lives in: every shim and every container's first
process is a fork of it, so /proc/<pid>/exe, wherever a container can see one, leads to a mount on which opening for
writing fails with EROFS (CVE-2019-5736: a container overwrote the runtime's binary that way).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import prctl

import runtime
from runtime.errors import ContainerError, explain, from_doc
from runtime.linux import mountapi
from runtime.linux.channel import Channel
from runtime.linux.failpoints import VARIABLE
from runtime.linux.mounts import bind

READY_SECONDS = 20.0
END_SECONDS = 5.0
TRIAL_SECONDS = 20.0
RESPAWN_TRIES = 3
RESPAWN_SECONDS = 0.02
# Arguments of the interpreter: no site, no user's startup files, no directory of the caller's; then where our two
# packages are.
_BOOT = (
    "import sys; sys.path[:0] = sys.argv[2:]; import runtime.words; "
    "from runtime.zygote import main; main(int(sys.argv[1]))"
)


class ZygoteLauncher:
    """Owns the zygote process; all methods belong to the event loop's thread, or to a time without one."""

    def __init__(self) -> None:
        self._begun: tuple[Channel, subprocess.Popen[bytes]] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The zygote's pid while it lives."""
        return self._process.pid if self._process else None

    def begin(self) -> None:
        """Execute the one that start() will await, so that its modules are imported while its daemon's are.

        Needs no event loop. Raises OSError.
        """
        self._begun = _executed()

    def abandon(self) -> None:
        """End one that was begun, if it was not started since."""
        if self._begun is not None:
            (channel, process), self._begun = self._begun, None
            channel.close()
            process.kill()
            process.wait()

    async def start(self) -> None:
        """Start one if none lives; returns when it is ready to fork. Raises OSError, TimeoutError, ContainerError."""
        await asyncio.shield(self._start())  # whoever gives up waiting leaves one that is watched, or none

    async def _start(self) -> None:
        async with self._starting:
            if self._process is None and not self._closed:
                await asyncio.to_thread(self._spawn)
                assert self._process is not None
                self._watch(self._process)

    def _spawn(self) -> None:
        (ours, process), self._begun = self._begun or _executed(), None
        try:
            _await_ready(ours, process)
            ours.setblocking(False)
        except BaseException:
            ours.close()
            process.kill()
            process.wait()
            raise
        self._process, self._channel = process, ours

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(process.pid)

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._forget(process)
            if not self._closed:
                task = loop.create_task(self._respawn())
                self._respawning = task  # the loop itself keeps only a weak reference

        loop.add_reader(pidfd, ended)

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        if self._process is process:
            self._process = None
            if self._channel:
                self._channel.close()
                self._channel = None

    async def _respawn(self) -> None:
        try:
            await self.start()
        except (OSError, ContainerError) as error:
            print(f"zygote: cannot be started again: {explain(error)}; the next pod tries anew", file=sys.stderr)

    async def fork_shim(self, connection: Channel) -> None:
        """Have a shim forked that hears on `connection` of its pod; whether it succeeds is told there.

        Raises OSError, TimeoutError, ContainerError when no zygote can be had.
        """
        await self._ask({"op": "shim"}, connection)

    async def try_user_namespace(self, directory: str) -> str:
        """Why layers below `directory` cannot be shown to a user namespace, "" if they can (runtime.trial).

        Raises ContainerError, OSError, TimeoutError when that cannot be found out.
        """
        ours, theirs = Channel.pair()
        with contextlib.closing(ours):
            with contextlib.closing(theirs):
                await self._ask({"op": "try", "directory": directory}, theirs)
            answer = await asyncio.to_thread(ours.recv_within, TRIAL_SECONDS)
        if answer is None:
            raise ContainerError("the trial of a user namespace was killed")
        return str(answer.doc["problem"]) if "problem" in answer.doc else explain(from_doc(answer.doc["error"]))

    async def _ask(self, request: dict[str, Any], connection: Channel) -> None:
        for _ in range(RESPAWN_TRIES):
            if self._closed:
                raise ContainerError("the runtime is closed")
            await self.start()
            try:
                if self._channel is not None:
                    return self._channel.send(request, [connection.fileno()])
            except BlockingIOError:
                self.restart()  # it takes no requests any more
            except OSError:
                self.restart()  # it has just died, or is about to
            await asyncio.sleep(RESPAWN_SECONDS)  # until its pidfd brings the news
        raise ContainerError("the zygote dies again and again; see its messages on this daemon's stderr")

    def restart(self) -> None:
        """Kill the zygote; a new one is started at once. Shims do not notice."""
        if self._process:
            self._process.kill()

    async def close(self) -> None:
        """End the zygote and wait for it."""
        self._closed = True
        async with self._starting:  # one that is being started is ended too
            pass
        process, channel, self._channel = self._process, self._channel, None
        if channel:
            channel.close()  # end of file is its sign to exit
        if process:
            try:
                await asyncio.to_thread(process.wait, END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _executed() -> tuple[Channel, subprocess.Popen[bytes]]:
    """A new one, which has yet to become ready, and our end of its channel."""
    ours, theirs = Channel.pair()
    try:
        with contextlib.closing(theirs):
            return ours, _execute_interpreter(theirs.fileno())
    except BaseException:
        ours.close()
        raise


def _execute_interpreter(channel_fd: int) -> subprocess.Popen[bytes]:
    interpreter = Path(sys.executable).resolve()
    directory = bind(str(interpreter.parent))
    try:
        mountapi.mount_setattr(directory, set_=mountapi.MOUNT_ATTR_RDONLY)
        arguments = ["-s", "-P", "-S", "-c", _BOOT, str(channel_fd), *_import_paths()]
        return subprocess.Popen(
            [str(interpreter), *arguments],
            executable=f"/proc/self/fd/{directory}/{interpreter.name}",
            pass_fds=(channel_fd, directory),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
    finally:
        os.close(directory)


def _import_paths() -> Sequence[str]:
    """Where our package and python-prctl live; the standard library the interpreter finds by itself."""
    return [str(Path(module).resolve().parent) for module in (str(Path(runtime.__file__).parent), str(prctl.__file__))]


def _environment() -> dict[str, str]:
    """Nothing of crid's environment; one malloc arena, because the zygote has one thread.

    PYTHONMALLOC: what is made one after the other lies side by side, whatever its size (`runtime.gathering`).
    LD_BIND_NOW: what ld.so resolves at the first call only, each shim would resolve and write down for itself.
    """
    memory = {"MALLOC_ARENA_MAX": "1", "PYTHONMALLOC": "malloc", "LD_BIND_NOW": "1"}
    own = {"LC_ALL": "C.UTF-8", "PATH": os.defpath} | memory
    return own | ({VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {})


def _await_ready(channel: Channel, process: subprocess.Popen[bytes]) -> None:
    message = channel.recv_within(READY_SECONDS)
    if message is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        raise ContainerError(f"the zygote exited with status {process.returncode} before it was ready")
    if not message.doc["ready"]:
        raise ContainerError(
            "the root directory is a chroot: what is executed in a container would find itself outside of it; "
            "make it the root of a mount namespace by pivot_root(8), as systemd's RootDirectory= does"
        )
