"""One pod's shim, as crid calls it. See `runtime.client` for the whole picture."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from runtime import recovery, state
from runtime.calls import Calls
from runtime.errors import NotFound, ShimLost
from runtime.events import Event, Exited, ShimLostEvent
from runtime.linux.channel import Channel
from runtime.linux.messages import Message
from runtime.linux.procs import Process
from runtime.preparation import Prepared, prepare, prepare_exec
from runtime.running import CALL_SECONDS, START_SECONDS, Attachment, Exec, Execs, Started
from runtime.spec import FIRST_REQUEST, ContainerSpec, ExecSpec
from runtime.watchers import Watchers

STOP_SECONDS = 30.0
#: A shim that says nothing for so long is not asked to end its pod: what it can still lose are exit codes.
SILENT_SECONDS = 5.0


class Pod:
    """One pod's shim. `netns_path` is "" on the host's network; `shim` is its process."""

    def __init__(self, id: str, state_dir: str, channel: Channel, on_event: Callable[[Event], None]) -> None:
        self.id = id
        self.state_dir = state_dir
        self.netns_path = ""
        self.shim = Process(0, 0)
        self._on_event = on_event
        self._starts: set[asyncio.Future[None]] = set()
        self._preparations: set[asyncio.Future[Prepared]] = set()
        self._stopping = False
        self._records: dict[str, Mapping[str, Any]] = {}
        self._watchers = Watchers(state_dir, known=False)
        self._calls = Calls(channel, f"the shim of sandbox {id}", self._event, self._lost)
        self._execs = Execs(self._calls)
        self._netlink: socket.socket | None = None

    @property
    def shm_path(self) -> str:
        """The pod's /dev/shm on the host, for the containers' bind mount; only with ipc "pod"."""
        return f"{self.state_dir}/{state.SHM}"

    @property
    def open(self) -> bool:
        """Whether the shim is still there, as far as we know."""
        return self._calls.open

    async def born(self, timeout: float) -> None:
        """Await the new shim's answer; raises what made the sandbox impossible."""
        self._watchers = Watchers(self.state_dir, known=True)
        message = await self._calls.expect(FIRST_REQUEST, timeout, "create")
        self._greeted(message.doc)
        if message.fds:
            self._netlink = socket.socket(fileno=message.fds[0])

    async def adopt(self) -> None:
        """Get to know a shim of an earlier run; exits that it has recorded are sent as events."""
        message = await self._calls.call("hello", CALL_SECONDS)
        self._greeted(message.doc)
        for doc in message.doc["exits"]:
            self._on_event(Exited.from_json(self.id, doc))

    def _greeted(self, doc: dict[str, Any]) -> None:
        self.shim = Process.from_json(doc["shim"])
        self.netns_path = doc["netns"]

    def disconnect(self) -> None:
        """Let go of the shim without a word; it and its containers go on."""
        self._calls.close()
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None
        self._execs.lose(f"the shim of sandbox {self.id} is gone")

    def _lost(self) -> None:
        self._execs.lose(f"the shim of sandbox {self.id} is gone")
        if self.shim.pid:  # else it was never there: whoever awaits its birth is told
            self._on_event(ShimLostEvent(self.id))

    def _event(self, doc: dict[str, Any]) -> None:
        if doc["event"] == "exited":
            self._on_event(Exited.from_json(self.id, doc))
        elif doc["event"] == "exec_exited":
            self._execs.exited(doc["exec"], doc["exit_code"])

    async def netlink(self) -> socket.socket:
        """A fresh NETLINK_ROUTE socket inside the pod's network namespace; the caller closes it."""
        if self._netlink is not None:
            prepared, self._netlink = self._netlink, None
            return prepared
        message = await self._calls.call("netlink", CALL_SECONDS)
        return socket.socket(fileno=message.fds[0])

    async def tcp_socket(self, family: int) -> socket.socket:
        """A fresh TCP socket of an address family (AF_INET, AF_INET6) inside the pod's network namespace."""
        message = await self._calls.call("tcp_socket", CALL_SECONDS, family=family)
        return socket.socket(fileno=message.fds[0])

    async def sysctl_net(self, name: str, value: str) -> None:
        """Write one net.* sysctl inside the pod. Raises OSError, ValueError for one that is not the pod's."""
        await self._calls.call("sysctl_net", CALL_SECONDS, name=name, value=value)

    async def start_container(self, spec: ContainerSpec) -> Started:
        """Run a container: on return execve is done. When this raises, nothing is left of it.

        Raises StartError (image or request), CgroupError, OSError, ContainerError.
        """
        with self._starting():
            message = await self._start(spec)
        return Started(message.doc["pid"], message.doc["started_at"])

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        if self._stopping:
            raise NotFound(f"sandbox {self.id} is being stopped")
        settled = asyncio.get_running_loop().create_future()
        self._starts.add(settled)
        try:
            yield
        finally:
            self._starts.discard(settled)
            settled.set_result(None)

    # Checkpoint and restore (runtime.criu): the shim bears criu, and the caller talks to it.

    async def run_criu(self, program: str, socket: int, seconds: float) -> int:
        """Run `criu swrk` on the fd `socket`, in the pod's namespaces and outside of its containers: its pid.

        It is killed after `seconds`. Raises OSError, ContainerError when it cannot be executed.
        """
        message = await self._calls.call("criu", START_SECONDS, [socket], program=program, seconds=seconds)
        return int(message.doc["pid"])

    @contextlib.asynccontextmanager
    async def restoring(self, spec: ContainerSpec, program: str, socket: int) -> AsyncIterator[int]:
        """Run `criu swrk` on the fd `socket` where the container will be, its mounts staged: the pid of criu.

        In the block container_arrived() is called; without that nothing is left of the container when the block ends.
        Raises as start_container() does.
        """
        with self._starting():
            async with self._watchers.paused():  # criu's children are seen in a shared PID namespace before they arrive
                message = await self._start(spec, program, [socket])
                try:
                    yield int(message.doc["pid"])
                except BaseException:
                    await asyncio.shield(self.remove_container(spec.id))
                    raise

    async def container_arrived(self, container_id: str, pid: int) -> Started:
        """Hand a restored first process over to the shim, which is its parent, before criu lets it run."""
        message = await self._calls.call("arrived", CALL_SECONDS, container=container_id, pid=pid)
        return Started(message.doc["pid"], message.doc["started_at"])

    async def _start(self, spec: ContainerSpec, criu: str = "", fds: Sequence[int] = ()) -> Message:
        preparation = asyncio.ensure_future(asyncio.to_thread(prepare, self.state_dir, spec, criu))
        self._preparations.add(preparation)
        preparation.add_done_callback(self._preparations.discard)
        prepared = await preparation
        op = "restore" if criu else "start"
        try:
            async with self._watchers.paused():
                given = [*fds, *prepared.fds()]
                message = await self._calls.call(op, START_SECONDS, given, prepared.blob, **prepared.request)
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(prepared.undo, error))
            raise
        finally:
            prepared.close()
        self._records[spec.id] = prepared.record
        self._watchers.add(prepared.record)
        return message

    def _record(self, container_id: str) -> Mapping[str, Any]:
        """What was started, from memory or, after a restart of crid, from disk."""
        if container_id not in self._records:
            record = state.read_container(self.state_dir, container_id)
            if record is None:
                raise NotFound(f"container {container_id} is not in sandbox {self.id}")
            self._records[container_id] = record
        return self._records[container_id]

    async def signal(self, container_id: str, signum: int) -> None:
        """Signal the container's first process. Raises NotFound when it has exited."""
        await self._calls.call("signal", CALL_SECONDS, container=container_id, signum=signum)

    async def kill(self, container_id: str) -> None:
        """SIGKILL everything in the container; no error when it has exited or never was."""
        await self._calls.call("kill", CALL_SECONDS, container=container_id)

    async def exec(
        self, container_id: str, spec: ExecSpec, stdin: int = -1, stdout: int = -1, stderr: int = -1
    ) -> Exec:
        """Run one more process in a container, on these fds (-1: /dev/null); the fds stay the caller's.

        With spec.tty there are no fds to give: `Exec.master` is the terminal. Raises NotFound, StartError, OSError.
        """
        wanted = [] if spec.tty else [("stdin", stdin), ("stdout", stdout), ("stderr", stderr)]
        given = [(name, fd) for name, fd in wanted if fd >= 0]
        record = self._record(container_id)
        request = {"container": container_id, "exec": spec.id, "tty": spec.tty, "streams": [name for name, _ in given]}
        if record.get("external"):
            request["oom_score_adj"] = spec.oom_score_adj
        return await self._execs.start(request, prepare_exec(record, spec), [fd for _, fd in given])

    async def attach(self, container_id: str) -> Attachment:
        """Fds to the container's streams from now on. A reader that is too slow is cut off, never waited for."""
        message = await self._calls.call("attach", CALL_SECONDS, container=container_id)
        fds = dict(zip(message.doc["streams"], message.fds, strict=True))
        return Attachment(fds.get("stdin"), fds["stdout"], fds.get("stderr"))

    async def resize(self, container_id: str, rows: int, columns: int) -> None:
        """Set the size of the container's terminal; no error without one."""
        await self._calls.call("resize", CALL_SECONDS, container=container_id, rows=rows, columns=columns)

    async def close_stdin(self, container_id: str) -> None:
        """Let the container read end of file."""
        await self._calls.call("close_stdin", CALL_SECONDS, container=container_id)

    async def reopen_log(self, container_id: str) -> None:
        """Open the log path anew, after a rotation has renamed the file. Raises NotFound, OSError."""
        await self._calls.call("reopen_log", CALL_SECONDS, container=container_id)

    async def container_status(self, container_id: str) -> dict[str, Any]:
        """What the shim knows: pid, started_at, and after the end exit_code, finished_at, oom_killed. NotFound."""
        message = await self._calls.call("status", CALL_SECONDS, container=container_id)
        status: dict[str, Any] = message.doc["status"]
        return status

    async def update_container(self, container_id: str, resources: Mapping[str, Any]) -> None:
        """Tell an external runtime of new OCI linux.resources, which the cgroup has already.

        Raises NotFound when the container does not run, StartError when the runtime refuses.
        """
        blob = json.dumps(resources).encode()
        await self._calls.call("update", CALL_SECONDS, blob=blob, container=container_id)

    async def remove_container(self, container_id: str) -> None:
        """Kill it if it runs, remove its cgroup and forget it; no error for an unknown one."""
        await self._calls.call("remove", STOP_SECONDS, container=container_id)
        self._records.pop(container_id, None)
        self._watchers.remove(container_id)

    async def stop(self) -> None:
        """End the pod: kill everything, undo the namespaces' pins, remove cgroups; the shim exits. Idempotent.

        Raises TimeoutError for a shim that hangs, OSError for what could not be undone.
        """
        self._stopping = True
        starts = list(self._starts)
        if self._preparations:  # they would make the pod's cgroup again, and nobody would know that it is ours
            await asyncio.wait(self._preparations, timeout=CALL_SECONDS)
        try:
            # "stop" is answered when all have died, which may take its time: that alone does not tell who hangs.
            heard = self._calls.call("hello", SILENT_SECONDS)
            await asyncio.gather(heard, self._calls.call("stop", STOP_SECONDS))
            clean = not starts
        except ShimLost:
            clean = False
        if starts:
            await asyncio.wait(starts)  # what they have prepared they take back themselves, but not the pod's cgroup
        if not clean:
            await asyncio.to_thread(recovery.destroy_lost, self.state_dir)
        self.disconnect()
