"""Commands of others, run under a hard deadline and with a limit on what they may say.

They stand apart from `procs` because shims import that and must not import `subprocess`: its at-fork handlers alone
would cost every pod half a megabyte.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

REAP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left: its exit status (negative: the signal that ended it) and its output, unparsed."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


class CommandFailed(RuntimeError):
    """A command was ended by us; `stdout` and `stderr` are what it had written until then."""

    def __init__(self, argv: Sequence[str], why: str, stdout: bytes, stderr: bytes) -> None:
        tail = stderr[-500:].decode("utf-8", "replace").strip()
        super().__init__(f"{argv[0]}: {why}" + (f"; its last words: {tail}" if tail else ""))
        self.argv = tuple(argv)
        self.stdout = stdout
        self.stderr = stderr


class CommandTimeout(CommandFailed, TimeoutError):
    """The command did not end before its deadline; its process group was killed."""


class CommandOutputTooLarge(CommandFailed):
    """The command wrote more than the caller allows; its process group was killed."""


def run_command(
    argv: Sequence[str],
    *,
    timeout: float,
    limit: int,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Completed:
    """Run a command in a session of its own until it exits; `timeout` in seconds, `limit` in bytes per output stream.

    It is over when the command itself exits: a grandchild that keeps the pipes open delays nobody. Blocks, so
    asyncio code calls it in a thread. Raises OSError when it cannot be executed, CommandTimeout, CommandOutputTooLarge.
    """
    deadline = time.monotonic() + timeout
    child = subprocess.Popen(  # no preexec_fn and no user change: CPython takes its vfork path
        argv,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )
    try:
        with _Conversation(child, argv, limit) as conversation:
            conversation.feed_and_collect(input or b"", deadline, timeout)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # not yet waited for, so the number is still ours
        raise
    finally:
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                stream.close()
        _reap(child)
    return Completed(tuple(argv), child.returncode, bytes(conversation.stdout), bytes(conversation.stderr))


def mortal(command: Sequence[str]) -> list[str]:
    """The command, killed by the kernel when the thread that starts it ends, so with this process at the latest."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *command]


def _reap(child: subprocess.Popen[bytes]) -> None:
    # A process stuck in the kernel (a dead NFS server) survives SIGKILL; Popen reaps it later, we do not wait for it.
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(REAP_SECONDS)


class _Conversation:
    """Feeds stdin and collects both outputs of one child without ever blocking on it."""

    def __init__(self, child: subprocess.Popen[bytes], argv: Sequence[str], limit: int) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._child = child
        self._argv = argv
        self._limit = limit
        self._selector = selectors.DefaultSelector()
        try:
            self._pidfd = os.pidfd_open(child.pid)
        except BaseException:
            self._selector.close()
            raise

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        os.close(self._pidfd)

    def feed_and_collect(self, data: bytes, deadline: float, timeout: float) -> None:
        """Return when the child has exited and its pipes are drained; raise CommandFailed otherwise."""
        outputs = ((self._child.stdout, self.stdout), (self._child.stderr, self.stderr))
        for stream, buffer in outputs:
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ, (stream, buffer))
        if self._child.stdin is not None:
            os.set_blocking(self._child.stdin.fileno(), False)
            self._selector.register(self._child.stdin, selectors.EVENT_WRITE, (self._child.stdin, memoryview(data)))
        self._selector.register(self._pidfd, selectors.EVENT_READ)
        while not self._turn(deadline, timeout):
            pass
        for stream, buffer in outputs:
            assert stream is not None
            while not stream.closed and self._read(stream, buffer):
                pass

    def _turn(self, deadline: float, timeout: float) -> bool:
        """Serve what is ready; True once the child has exited."""
        left = deadline - time.monotonic()
        events = self._selector.select(left) if left > 0 else []
        if not events:
            raise CommandTimeout(self._argv, f"still running after {timeout:g} s", *self._so_far())
        exited = False
        for key, _ in events:
            match key.data:
                case None:  # the pidfd
                    exited = True
                case stream, memoryview() as rest:
                    self._write(stream, rest)
                case stream, buffer:
                    self._read(stream, buffer)
        return exited

    def _write(self, stream: IO[bytes], rest: memoryview) -> None:
        try:
            rest = rest[os.write(stream.fileno(), rest) :] if rest else rest
        except BrokenPipeError:  # it does not want our input; its exit status tells what that means
            rest = rest[:0]
        if rest:
            self._selector.modify(stream, selectors.EVENT_WRITE, (stream, rest))
        else:
            self._selector.unregister(stream)
            stream.close()

    def _read(self, stream: IO[bytes], buffer: bytearray) -> bool:
        """Read once; False at the end of the stream or when nothing is there now."""
        try:
            chunk = os.read(stream.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        if not chunk:
            self._selector.unregister(stream)
            stream.close()
            return False
        buffer += chunk
        if len(buffer) > self._limit:
            raise CommandOutputTooLarge(self._argv, f"wrote more than {self._limit} bytes", *self._so_far())
        return True

    def _so_far(self) -> tuple[bytes, bytes]:
        return bytes(self.stdout), bytes(self.stderr)
