"""Requests and limits to what a cgroup takes. Source: pkg/kubelet/kuberuntime/kuberuntime_container_linux.go."""

from __future__ import annotations

from typing import Any

from cri.proto import api_pb2
from nodeagent.node import Node
from nodeagent.pods import quantity
from nodeagent.pods.pod import Pod
from nodeagent.pods.qos import oom_score_adj

#: Microseconds of one CFS period.
PERIOD = 100_000
LEAST_QUOTA = 1000
LEAST_SHARES = 2
MOST_SHARES = 262_144
_PAGE_UNITS = {"Ki": "KB", "Mi": "MB", "Gi": "GB"}


def container_resources(pod: Pod, container: dict[str, Any], node: Node) -> api_pb2.LinuxContainerResources:
    limits = container["resources"].get("limits") or {}
    memory = quantity.whole(limits.get("memory", 0))
    return api_pb2.LinuxContainerResources(
        cpu_period=PERIOD,
        cpu_quota=quota(quantity.milli(limits.get("cpu", 0))),
        cpu_shares=shares(quantity.milli(container["resources"]["requests"].get("cpu", 0))),
        memory_limit_in_bytes=memory,
        # On a node with swap a limit is one of memory and swap together: pods do not swap.
        memory_swap_limit_in_bytes=memory if node.swap else 0,
        oom_score_adj=oom_score_adj(pod, container, node.memory),
        hugepage_limits=_hugepages(limits),
    )


def pod_resources(pod: Pod) -> api_pb2.LinuxContainerResources:
    """The sum over the containers that run together; a limit only where each of them has one.

    An init container runs before the others, so the pod needs the larger of the two.
    """
    resources = api_pb2.LinuxContainerResources(cpu_period=PERIOD)
    resources.cpu_shares = shares(_needed(pod, "requests", "cpu", default=0) or 0)
    cpu = _needed(pod, "limits", "cpu")
    memory = _needed(pod, "limits", "memory")
    resources.cpu_quota = quota(cpu) if cpu else 0
    resources.memory_limit_in_bytes = -(-memory // 1000) if memory else 0
    return resources


def quota(milli_cpus: int) -> int:
    """Microseconds of each period; 0 is no limit."""
    return max(milli_cpus * PERIOD // 1000, LEAST_QUOTA) if milli_cpus else 0


def shares(milli_cpus: int) -> int:
    return min(max(milli_cpus * 1024 // 1000, LEAST_SHARES), MOST_SHARES)


def _needed(pod: Pod, kind: str, resource: str, default: int | None = None) -> int | None:
    """Thousandths; None when one container that counts says nothing."""

    def of(container: dict[str, Any]) -> int | None:
        amount = (container["resources"].get(kind) or {}).get(resource)
        return default if amount is None else quantity.milli(amount)

    together = [of(container) for container in pod.containers]
    together += [of(container) for container in pod.init_containers if container.get("restartPolicy") == "Always"]
    alone = [of(container) for container in pod.init_containers if container.get("restartPolicy") != "Always"]
    if None in together or None in alone:
        return None
    return max([sum(each or 0 for each in together), *(each or 0 for each in alone)])


def _hugepages(limits: dict[str, Any]) -> list[api_pb2.HugepageLimit]:
    pages = []
    for name, amount in limits.items():
        size = name.removeprefix("hugepages-")
        if size != name:
            unit = _PAGE_UNITS.get(size[-2:], "B")
            pages.append(api_pb2.HugepageLimit(page_size=size[:-2] + unit, limit=quantity.whole(amount)))
    return pages
