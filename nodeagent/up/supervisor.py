"""All daemons of a node: started in order, stopped in reverse, orphans reaped, signals heard.

It is a subreaper (prctl(2)): when crid dies, its pods' shims become children of this process and stay one family that
can be seen as such, and whoever of them ends leaves no zombie.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

from nodeagent.up.family import become_subreaper
from nodeagent.up.service import Service

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The operator wants the node to stop."""


class Supervisor:
    """To be used within one event loop, in the process's main thread."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self.services: list[Service] = []
        self.stop_wanted = asyncio.Event()
        self._told = told
        self._commands: set[subprocess.Popen[str]] = set()

    async def __aenter__(self) -> Self:
        become_subreaper()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_all()
        self._reap()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGCHLD, *STOP_SIGNALS):
            loop.remove_signal_handler(number)

    async def start(self, service: Service) -> None:
        """Raises StartFailed; Interrupted when the operator does not wait for it."""
        self.services.append(service)
        async with self.interruptible():
            await service.start()

    async def stop(self, service: Service) -> None:
        try:
            await service.stop()
        finally:
            self.services.remove(service)

    async def stop_all(self) -> None:
        while self.services:
            await self.stop(self.services[-1])

    async def command(self, words: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """A command that is to end by itself, with its output. Raises OSError, subprocess.TimeoutExpired."""
        # Made in this thread, in which no SIGCHLD is heard before the process is known here.
        return await asyncio.to_thread(self._finished, self._begun(words), timeout)

    def _begun(self, words: Sequence[str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
        self._commands.add(process)
        return process

    def _finished(self, process: subprocess.Popen[str], timeout: float) -> subprocess.CompletedProcess[str]:
        try:
            with process:
                try:
                    output, errors = process.communicate(timeout=timeout)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise
        finally:
            self._commands.discard(process)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    @contextlib.asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """A block that a stop signal cuts short. Raises Interrupted."""
        task = asyncio.current_task()
        assert task is not None
        watcher = asyncio.create_task(self._cancel_when_stopped(task))
        try:
            yield
        except asyncio.CancelledError:
            if not self.stop_wanted.is_set():
                raise
            task.uncancel()
            raise Interrupted from None
        finally:
            watcher.cancel()

    async def _cancel_when_stopped(self, task: asyncio.Task[object]) -> None:
        await self.stop_wanted.wait()
        task.cancel()

    def _stop(self) -> None:
        if self.stop_wanted.is_set():
            self._told("still stopping")
        self.stop_wanted.set()

    def _reap(self) -> None:
        """Whoever has ended: orphans that came to us, and children of our own, whose objects keep the exit status."""
        children = [*(service.child for service in self.services), *self._commands.copy()]
        own = {child.pid: child for child in children if child is not None and child.returncode is None}
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in own:
                    own[ended.si_pid].poll()
                else:
                    os.waitpid(ended.si_pid, os.WNOHANG)
