"""Every state that a sandbox and a container can be in, in one crid at once, for the table of restarts."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from typing import Any

from cri.client import CriError
from cri.proto import api_pb2 as api
from cri.streaming_client import StreamFailed, exec_session
from tests.support.crid import Crid, Sandbox
from tests.support.deaths import shim_of, shims_gone
from tests.support.nothing_left import command_line
from tests.support.processes import eventually

FOREVER = ["sh", "-c", "trap '' TERM; trap 'echo after' USR1; echo before; while :; do sleep 0.05; done"]
OWN_PIDS = {"pid": api.CONTAINER}  # so that process 1 is the container's own, and can be told to speak
IDS = {"host_id": 1_000_000, "container_id": 0, "length": 65_536}
USERNS = {"mode": api.POD, "uids": [IDS], "gids": [IDS]}
#: Containers that are not in the sandbox "own network", and where they are.
ELSEWHERE = {"in user namespace": "user namespace", "run by runc": "of runc", "exited of runc": "of runc"}
LITTLE_MEMORY = {"memory_limit_in_bytes": 16 << 20, "memory_swap_limit_in_bytes": 16 << 20}
REASONS = {"OOMKilled": "OOM", "StartError": "Start"}
CALL_SECONDS = 20.0


def _linux(**options: Any) -> dict[str, Any]:
    return {"security_context": {"namespace_options": options}}


async def state_of(crid: Crid, container: str) -> str:
    """`created`, `running`, `lost` (255 Unknown), `<code> <reason>`, or `gone`."""
    try:
        status = await crid.status(container)
    except CriError:
        return "gone"
    if status.state != api.CONTAINER_EXITED:
        return api.ContainerState.Name(status.state).removeprefix("CONTAINER_").lower()
    if (status.exit_code, status.reason) == (255, "Unknown"):
        return "lost"
    return f"{status.exit_code} {REASONS.get(status.reason, status.reason)}"


async def sandbox_state(crid: Crid, sandbox: str) -> str:
    """`ready`, `notready` or `gone`."""
    try:
        status = (await crid.cri.PodSandboxStatus(pod_sandbox_id=sandbox)).status
    except CriError:
        return "gone"
    return api.PodSandboxState.Name(status.state).removeprefix("SANDBOX_").lower()


class Scene:
    """Sandboxes, containers and calls under way by the names of the tables' rows."""

    def __init__(self, crid: Crid, image: str) -> None:
        self._crid = crid
        self._image = image
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, str] = {}
        self._calls: dict[str, asyncio.Task[Any]] = {}
        #: What the attached client sees.
        self._seen = os.pipe2(os.O_CLOEXEC)

    async def set(self) -> None:
        """Bring everything into its state."""
        await self._make_sandboxes()
        main = self._sandboxes["own network"]
        await self._make_containers(main)
        said = ["running", "being stopped", "with an exec", "with an attach", "in user namespace", "run by runc"]
        await self._until_said(said, "before")
        await self._begin_calls()

    async def _make_sandboxes(self) -> None:
        for name, options in (
            ("own network", OWN_PIDS),
            ("host network", {"network": api.NODE}),
            ("shared pids", {"pid": api.POD}),
            ("no container", OWN_PIDS),
            ("stopped", OWN_PIDS),
            ("lost its shim", OWN_PIDS),
        ):
            self._sandboxes[name] = await self._crid.run_pod(linux=_linux(**options))
        for name in ("host network", "shared pids"):
            await self._crid.run(self._sandboxes[name], self._image, FOREVER)
        self._sandboxes["user namespace"] = await self._crid.run_pod(linux=_linux(userns_options=USERNS, **OWN_PIDS))
        config = self._crid.pod_config(linux=_linux(**OWN_PIDS))
        answer = await self._crid.cri.RunPodSandbox(config=config, runtime_handler="runc")
        self._sandboxes["of runc"] = answer.pod_sandbox_id, config
        stopped, lost = self._sandboxes["stopped"][0], self._sandboxes["lost its shim"][0]
        await self._crid.cri.StopPodSandbox(pod_sandbox_id=stopped)
        os.kill(await shim_of(self._crid, lost), signal.SIGKILL)
        await shims_gone(self._crid, [lost])

    async def _make_containers(self, main: Sandbox) -> None:
        async def create(name: str, command: list[str], **linux: Any) -> None:
            linux |= _linux(**OWN_PIDS)
            self._containers[name] = await self._crid.create(main, self._image, command, name=name, linux=linux)

        async def run(name: str, command: list[str], **linux: Any) -> None:
            await create(name, command, **linux)
            try:
                await self._crid.cri.StartContainer(container_id=self._containers[name])
            except CriError:
                assert name == "start failed"

        await create("created", ["true"])
        await run("running", FOREVER)
        await run("exited 0", ["sh", "-c", "echo bye"])
        await run("exited 3", ["sh", "-c", "echo bye; exit 3"])
        await run("oom killed", ["tail", "/dev/zero"], resources=LITTLE_MEMORY)
        await run("start failed", ["/no/such/program"])
        for name in ("being stopped", "with an exec", "with an attach"):
            await run(name, FOREVER)
        for name, pod, command in (
            ("in user namespace", "user namespace", FOREVER),
            ("run by runc", "of runc", FOREVER),
            ("exited of runc", "of runc", ["sh", "-c", "echo bye; exit 3"]),
        ):
            self._containers[name] = await self._crid.run(self._sandboxes[pod], self._image, command, name=name)
        for name in ("exited 0", "exited 3", "oom killed", "exited of runc"):
            await self._crid.ended(self._containers[name])

    async def _begin_calls(self) -> None:
        cri, ids = self._crid.cri, self._containers
        stop = api.StopContainerRequest(container_id=ids["being stopped"], timeout=2)
        self._calls["StopContainer"] = asyncio.create_task(cri.StopContainer(stop))
        seconds = f"2.{secrets.randbelow(10**8):08}"  # nobody else on this machine sleeps as long
        sleep = api.ExecSyncRequest(container_id=ids["with an exec"], cmd=["sleep", seconds], timeout=10)
        self._calls["ExecSync"] = asyncio.create_task(cri.ExecSync(sleep))
        url = (await cri.Attach(container_id=ids["with an attach"], stdout=True)).url
        self._calls["attach"] = asyncio.create_task(exec_session(url, stdin=None, stdout=self._seen[1], stderr=2))
        await eventually(lambda: any(f"sleep\0{seconds}" in command_line(pid) for pid in os.listdir("/proc")))
        await self._signal_until_attached(ids["with an attach"])

    async def _signal_until_attached(self, container: str) -> None:
        """An attachment shows what is written from now on, and does not say when that is."""
        os.set_blocking(self._seen[0], False)
        for _ in range(100):
            assert (await self._crid.exec(container, "kill", "-USR1", "1"))[0] == 0
            await asyncio.sleep(0.1)
            if self._calls["attach"].done():
                raise AssertionError("the attachment is over") from self._calls["attach"].exception()
            try:
                assert b"after\n" in os.read(self._seen[0], 4096)
            except BlockingIOError:
                continue
            return
        raise AssertionError("an attachment shows nothing")

    async def _until_said(self, names: list[str], text: str) -> None:
        for name in names:
            await eventually(lambda name=name: self._log(name).endswith(text))  # type: ignore[misc]

    def _log(self, name: str) -> str:
        return self._crid.log_of(self._sandboxes[ELSEWHERE.get(name, "own network")][1], name)

    async def calls(self) -> dict[str, str]:
        """`answers`, `fails`; `ends` or `goes on` for the stream."""
        names = ("StopContainer", "ExecSync")
        found = await asyncio.wait_for(
            asyncio.gather(*(self._calls[name] for name in names), return_exceptions=True), CALL_SECONDS
        )
        words = {
            name: "fails" if isinstance(each, CriError) else "answers" for name, each in zip(names, found, strict=True)
        }
        return words | {"attach": await self._stream()}

    async def _stream(self) -> str:
        attach = self._calls["attach"]
        await asyncio.wait({attach}, timeout=1)
        if not attach.done():
            return "goes on"
        assert isinstance(attach.exception(), StreamFailed | OSError | None)
        return "ends"

    async def sandbox_states(self) -> dict[str, str]:
        return {name: await sandbox_state(self._crid, pod[0]) for name, pod in self._sandboxes.items()}

    async def container_states(self) -> dict[str, str]:
        return {name: await state_of(self._crid, id) for name, id in self._containers.items()}

    async def logs_are_true(self) -> None:
        """What ended has said all, and what runs goes on being heard."""
        for name in ("exited 0", "exited 3", "exited of runc"):
            assert self._log(name) == "bye"
        for name, id in self._containers.items():
            if await state_of(self._crid, id) == "running":
                before = self._log(name)
                assert (await self._crid.exec(id, "kill", "-USR1", "1"))[0] == 0
                await eventually(lambda name=name, before=before: self._log(name) == f"{before}\nafter")  # type: ignore[misc]

    async def make_every_pod_again(self) -> None:
        """The same pods, by name and uid: nothing of the former ones may be in their way."""
        for sandbox, config in self._sandboxes.values():
            await self._crid.cri.StopPodSandbox(pod_sandbox_id=sandbox)
            await self._crid.cri.RemovePodSandbox(pod_sandbox_id=sandbox)
            again = await self._crid.run_pod(config)
            id = await self._crid.run(again, self._image, ["true"], name="again")
            assert (await self._crid.ended(id)).exit_code == 0
            await self._crid.cri.RemovePodSandbox(pod_sandbox_id=again[0])

    def close(self) -> None:
        for call in self._calls.values():
            call.cancel()
        for fd in self._seen:
            os.close(fd)
