"""The requests of the bench: one small pod with a network of its own, and the calls around it, timed.

The container's process ends at once on SIGTERM, so that stopping measures the runtime and not a grace period. Its
command line carries a marker by which the bench finds it among the machine's processes.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cri.client import CriClientSync, CriError
from cri.proto import api_pb2 as api

LABEL = "bench-run"
DEADLINE = 120.0  # seconds for any one call
GRACE = 30  # seconds the container has to end, as a kubelet would give it

# As a kubelet asks for them: processes are not shared in the pod, the rest is.
_NAMESPACES = api.NamespaceOption(network=api.POD, pid=api.CONTAINER, ipc=api.POD)
_numbers = itertools.count()


def marker() -> str:
    """A sleep of about 31 years that no other run of the bench has."""
    return str(10**9 + secrets.randbelow(10**9))


@dataclass(frozen=True, slots=True)
class Pod:
    sandbox: str
    container: str


class Pods:
    """Pods of one runtime. `times` of each step, in seconds, are handed to `record` by the step's name."""

    def __init__(self, client: CriClientSync, image: str, cgroup_parent: str, mark: str) -> None:
        self.client = client
        self._image = image
        self._cgroup_parent = cgroup_parent
        self._mark = mark

    def start(self, record: Callable[[str, float], None] = lambda step, seconds: None) -> Pod:
        """RunPodSandbox, CreateContainer, StartContainer."""
        config = self._sandbox_config()
        with _Clock(record, "start"):
            with _Clock(record, "run_sandbox"):
                sandbox = self._call("RunPodSandbox", config=config).pod_sandbox_id
            with _Clock(record, "create"):
                container = self._call(
                    "CreateContainer", pod_sandbox_id=sandbox, config=self._container_config(), sandbox_config=config
                ).container_id
            with _Clock(record, "start_container"):
                self._call("StartContainer", container_id=container)
        return Pod(sandbox, container)

    def end(self, pod: Pod, record: Callable[[str, float], None] = lambda step, seconds: None) -> None:
        """StopContainer, StopPodSandbox, RemoveContainer, RemovePodSandbox."""
        with _Clock(record, "stop_container"):
            stop = api.StopContainerRequest(container_id=pod.container, timeout=GRACE)
            self.client.StopContainer(stop, timeout=DEADLINE)
        with _Clock(record, "stop_sandbox"):
            self._call("StopPodSandbox", pod_sandbox_id=pod.sandbox)
        with _Clock(record, "remove"):
            self._call("RemoveContainer", container_id=pod.container)
            self._call("RemovePodSandbox", pod_sandbox_id=pod.sandbox)

    def exec_true(self, pod: Pod, record: Callable[[str, float], None]) -> None:
        request = api.ExecSyncRequest(container_id=pod.container, cmd=["true"], timeout=10)
        with _Clock(record, "exec"):
            answer = self.client.ExecSync(request, timeout=DEADLINE)
        if answer.exit_code:
            raise RuntimeError(f"`true` ended with {answer.exit_code}: {answer.stderr!r}")

    def running(self) -> int:
        """How many of our containers run, as ListContainers has it."""
        state = api.ContainerStateValue(state=api.CONTAINER_RUNNING)
        listed = self._call("ListContainers", filter=api.ContainerFilter(state=state, label_selector=self._labels))
        return len(listed.containers)

    def remove_all(self) -> None:
        """Everything that this run has made at this socket, also what an error has left half-made."""
        chosen = api.PodSandboxFilter(label_selector=self._labels)
        for sandbox in self._call("ListPodSandbox", filter=chosen).items:
            self._call("StopPodSandbox", pod_sandbox_id=sandbox.id)
            self._call("RemovePodSandbox", pod_sandbox_id=sandbox.id)

    @property
    def _labels(self) -> dict[str, str]:
        return {LABEL: self._mark}

    def _call(self, method: str, **fields: Any) -> Any:
        return getattr(self.client, method)(**fields, timeout=DEADLINE)

    def _sandbox_config(self) -> api.PodSandboxConfig:
        name = f"bench-{next(_numbers)}"
        return api.PodSandboxConfig(
            metadata=api.PodSandboxMetadata(name=name, namespace="bench", uid=secrets.token_hex(8)),
            hostname=name,
            labels=self._labels,
            linux=api.LinuxPodSandboxConfig(
                cgroup_parent=self._cgroup_parent,
                security_context=api.LinuxSandboxSecurityContext(namespace_options=_NAMESPACES),
            ),
        )

    def _container_config(self) -> api.ContainerConfig:
        return api.ContainerConfig(
            metadata=api.ContainerMetadata(name="main"),
            image=api.ImageSpec(image=self._image),
            command=["sh", "-c", f"trap 'exit 0' TERM; sleep {self._mark} & wait"],
            labels=self._labels,
            linux=api.LinuxContainerConfig(
                resources=api.LinuxContainerResources(cpu_shares=100),
                security_context=api.LinuxContainerSecurityContext(namespace_options=_NAMESPACES),
            ),
        )


class _Clock:
    def __init__(self, record: Callable[[str, float], None], step: str) -> None:
        self._record, self._step = record, step

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._record(self._step, time.perf_counter() - self._started)


def is_up(client: CriClientSync) -> bool:
    """Whether the runtime answers and has its network."""
    try:
        conditions = client.Status(timeout=2.0).status.conditions
    except CriError:
        return False
    return all(condition.status for condition in conditions if condition.type in ("RuntimeReady", "NetworkReady"))
