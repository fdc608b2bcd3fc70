"""ExecSync: run a command in a container and answer with its output.

Output is read as it comes and kept up to a limit (CVE-2022-1708, CVE-2022-31030); what is beyond is read and dropped,
so that the command neither blocks nor fails. The answer does not wait for grandchildren that keep the pipes open.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Sequence

from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon, pod_of
from cri.server.errors import InvalidRequest, TookTooLong, WrongState
from cri.server.pods import Container
from runtime.spec import ExecSpec

OUTPUT_LIMIT = 16 << 20
_CHUNK = 1 << 16


async def exec_sync(daemon: Daemon, request: api.ExecSyncRequest) -> api.ExecSyncResponse:
    """Raises TookTooLong after request.timeout seconds, once the command and all it started are killed."""
    container = runnable(daemon, request.container_id, request.cmd)
    deadline = asyncio.timeout(request.timeout if request.timeout > 0 else None)
    with _Output() as stdout, _Output() as stderr:
        try:
            async with deadline:
                code = await _run(container, request, stdout, stderr)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise TookTooLong(
                f"command {request.cmd[0][:80]!r} in container {container.id[:13]} ({container.name}) timed out "
                f"after {request.timeout} s and was killed"
            ) from None
        return api.ExecSyncResponse(stdout=stdout.drained(), stderr=stderr.drained(), exit_code=code)


def runnable(daemon: Daemon, container_id: str, command: Sequence[str]) -> Container:
    """The container of an exec request; raises InvalidRequest, NotFound, WrongState."""
    if not command:
        raise InvalidRequest("cmd is empty: it names the command to run")
    return running_container(daemon, container_id)


def running_container(daemon: Daemon, container_id: str) -> Container:
    """Raises NotFound, WrongState."""
    container = daemon.store.containers.get(container_id)
    if not container.running:
        state = api.ContainerState.Name(container.state)
        raise WrongState(
            f"container {container.id[:13]} ({container.name}) is {state}; only a running one can be entered"
        )
    return container


async def _run(container: Container, request: api.ExecSyncRequest, stdout: _Output, stderr: _Output) -> int:
    """The exit code; a cancellation kills the command, be it only about to start."""
    spec = ExecSpec(id=secrets.token_hex(16), args=list(request.cmd), oom_score_adj=container.oom_score_adj)
    pod = pod_of(container.sandbox)
    running = await pod.exec(container.id, spec, stdout=stdout.write_end, stderr=stderr.write_end)
    stdout.listen()
    stderr.listen()
    try:
        return await running.wait()
    except asyncio.CancelledError:
        await asyncio.shield(running.kill())
        raise


class _Output:
    """One pipe: the write end for the command, what was read so far for us."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_end, False)
        self._kept = bytearray()  # no list of pieces: a command that writes byte by byte makes millions of them
        self._listening = False

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *_: object) -> None:
        self._unlisten()
        self._close_write_end()
        os.close(self._read_end)

    def _close_write_end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def listen(self) -> None:
        """The command has its own copy of the write end; from now on end of file means something."""
        self._close_write_end()
        self._listening = True
        asyncio.get_running_loop().add_reader(self._read_end, self._readable)

    def _unlisten(self) -> None:
        if self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._read_end)

    def _readable(self) -> bool:
        """Read once; False when nothing more is there now."""
        try:
            chunk = os.read(self._read_end, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._unlisten()
            return False
        self._kept += chunk[: OUTPUT_LIMIT - len(self._kept)]
        return True

    def drained(self) -> bytes:
        """All output of a command that has exited: what it wrote is in the pipe by now, at most one pipe full."""
        for _ in range(_PIPE_READS):
            if not self._readable():
                break
        return bytes(self._kept)


#: Bound for the last reads: a grandchild that still writes must not keep us here.
_PIPE_READS = 64
