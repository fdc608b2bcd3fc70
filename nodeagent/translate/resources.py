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
    """Of the containers that run together; a limit only where each container has one."""
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
    """Thousandths; None when one container says nothing, or 0, which is no limit either."""
    amounts: dict[str, int | None] = {
        each["name"]: quantity.milli((each["resources"].get(kind) or {}).get(resource) or 0) or default
        for each in pod.all_containers()
    }
    if None in amounts.values():
        return None
    return pod.at_once(lambda each: amounts[each["name"]] or 0)


def _hugepages(limits: dict[str, Any]) -> list[api_pb2.HugepageLimit]:
    pages = []
    for name, amount in limits.items():
        size = name.removeprefix("hugepages-")
        if size != name:
            unit = _PAGE_UNITS.get(size[-2:], "B")
            pages.append(api_pb2.HugepageLimit(page_size=size[:-2] + unit, limit=quantity.whole(amount)))
    return pages
