"""Making what a plan asks for: sandboxes and containers, step by step, with the reason when one fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from cri.client import CriError
from cri.proto import api_pb2
from nodeagent.pods.pod import Pod
from nodeagent.sync.backoff import Backoff
from nodeagent.sync.ending import SLACK, remove_container
from nodeagent.sync.hooks import HookFailed, run_hook
from nodeagent.sync.observed import Container, Sandbox, State, sandbox_of
from nodeagent.sync.plan import Start, Waiting
from nodeagent.sync.pulls import PodImages
from nodeagent.sync.tools import Tools
from nodeagent.translate import marks
from nodeagent.translate.container import ContainerRefused, Image, Surroundings, Volume, container_config
from nodeagent.translate.sandbox import sandbox_config
from nodeagent.translate.security import SecurityRefused
from nodeagent.volumes.errors import VolumesError
from runtime.linux.database import DatabaseError
from runtime.linux.failpoints import failpoint

#: Seconds for a sandbox with its network, as in the kubelet. A later try joins one that is under way still.
SANDBOX_TIMEOUT = 240.0
POST_START_TIMEOUT = 600.0


class Failed(Exception):
    """One step of the way failed. `reason` is the kubelet's word for it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Starter:
    """The starts of one pod. Volumes are mounted when the first container of this agent's time needs them: a pod that
    runs already is not touched by an agent that comes back."""

    def __init__(self, pod: Pod, tools: Tools, wake: Callable[[], None]) -> None:
        self._pod = pod
        self._tools = tools
        self._images = PodImages(pod.key, tools.images, tools.journal, wake)
        self._volumes: Mapping[str, Volume] | None = None
        self._files_for: str | None = None
        self._backoffs: dict[str, Backoff] = {}
        self._hooks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        self._images.close()
        for task in self._hooks:
            task.cancel()

    async def sandbox(self, attempt: int) -> None:
        """Raises Failed, CriError."""
        await self._have_uid()
        await self._tools.teardown.call_off(self._pod.uid)
        await self.volumes()
        failpoint("agent.sync.before_sandbox")
        config = sandbox_config(self._pod, attempt, self._tools.node)
        try:
            await self._tools.cri.RunPodSandbox(config=config, timeout=SANDBOX_TIMEOUT)
        except CriError as error:
            raise Failed("FailedCreatePodSandBox", error.details or error.code) from error
        failpoint("agent.sync.after_sandbox")

    async def _have_uid(self) -> None:
        """No pod of another name may still have it: the end of that one would undo what is made for this one."""
        pod, tools = self._pod, self._tools
        wanted = {marks.POD_UID: pod.uid, marks.NODE: tools.node.name}
        answer = await tools.cri.ListPodSandbox(filter=api_pb2.PodSandboxFilter(label_selector=wanted))
        others = [str(sandbox.key) for sandbox in map(sandbox_of, answer.items) if sandbox.key != pod.key]
        if others or not tools.teardown.hold(pod.key, pod.uid):
            named = f"pod {others[0]}" if others else "another pod"
            raise Failed("FailedCreatePodSandBox", f"{named} with the same metadata.uid {pod.uid} is still ending")

    async def volumes(self) -> Mapping[str, Volume]:
        """Raises Failed."""
        if self._volumes is None:
            try:
                self._volumes = await self._tools.volumes.mount(self._pod.document, self._tools.claims())
            except VolumesError as error:
                raise Failed("FailedMount", str(error)) from error
        return self._volumes

    async def container(self, start: Start, sandbox: Sandbox) -> Waiting | None:
        """Start it, or say what it waits for: an image, or the end of a pause after a failure."""
        name = start.container["name"]
        try:
            created = start.created or await self._create(start, sandbox)
            if isinstance(created, Waiting):
                return created
            await self._start(created, start)
        except Failed as error:
            self._tools.journal.warn(self._pod.key, error.reason, f"container {name}: {error.message}")
            until = self._backoffs.setdefault(name, Backoff()).failed(time.time_ns())
            return Waiting(error.reason, error.message, until)
        self._backoffs.pop(name, None)
        return None

    async def _create(self, start: Start, sandbox: Sandbox) -> str | Waiting:
        image = await self._images.get(start.container)
        if isinstance(image, Waiting):
            return image
        config = await self._config(start, sandbox, image)
        failpoint("agent.sync.before_create")
        try:
            answer = await self._tools.cri.CreateContainer(
                pod_sandbox_id=sandbox.id,
                config=config,
                sandbox_config=sandbox_config(self._pod, sandbox.attempt, self._tools.node),
            )
        except CriError as error:
            raise Failed("CreateContainerError", error.details or error.code) from error
        failpoint("agent.sync.after_create")
        container_id: str = answer.container_id
        return container_id

    async def _config(self, start: Start, sandbox: Sandbox, image: Image) -> api_pb2.ContainerConfig:
        pod, files, name = self._pod, self._tools.files, start.container["name"]
        try:
            if self._files_for != sandbox.id:
                await asyncio.to_thread(files.make, pod, sandbox.ips)
                self._files_for = sandbox.id
            message = await asyncio.to_thread(files.make_message, pod.uid, name, start.attempt)
            around = Surroundings(
                self._tools.node, image, await self.volumes(), sandbox.ips, files.hosts(pod.uid), message
            )
            return container_config(pod, start.container, start.attempt, start.backoff, around)
        except (ContainerRefused, SecurityRefused, DatabaseError, OSError) as error:
            raise Failed("CreateContainerConfigError", str(error)) from error

    async def _start(self, container_id: str, start: Start) -> None:
        name, cri = start.container["name"], self._tools.cri
        try:
            await cri.StartContainer(container_id=container_id)
        except CriError as error:
            await self._forget_unstarted(container_id)
            raise Failed("RunContainerError", error.details or error.code) from error
        failpoint("agent.sync.after_start")
        self._tools.journal.tell(self._pod.key, "Started", f"container {name}, attempt {start.attempt}")
        hook = (start.container.get("lifecycle") or {}).get("postStart")
        if hook is not None:
            task = asyncio.create_task(self._post_start(container_id, name, hook), name=f"postStart {name}")
            self._hooks.add(task)
            task.add_done_callback(self._hooks.discard)

    async def _forget_unstarted(self, container_id: str) -> None:
        """A container that never ran stays in some runtimes as created; only one that ended counts as an attempt."""
        try:
            answer = await self._tools.cri.ContainerStatus(container_id=container_id)
            if State(answer.status.state) is State.CREATED:
                await remove_container(self._tools.cri, Container.of(answer.status, ""))
        except CriError as error:
            self._tools.journal.warn(self._pod.key, "FailedCleanup", f"container {container_id[:13]}: {error}")

    async def _post_start(self, container_id: str, name: str, hook: Mapping[str, Any]) -> None:
        try:
            await run_hook(self._tools.cri, container_id, hook, POST_START_TIMEOUT)
        except HookFailed as error:
            self._tools.journal.warn(self._pod.key, "FailedPostStartHook", f"container {name} is killed: {error}")
            request = api_pb2.StopContainerRequest(container_id=container_id, timeout=self._pod.grace)
            await self._tools.cri.StopContainer(request, timeout=self._pod.grace + SLACK)
