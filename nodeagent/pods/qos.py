"""Quality of service classes and what follows from them. Source: pkg/apis/core/v1/helper/qos, pkg/kubelet/qos."""

from __future__ import annotations

from typing import Any, Literal

from nodeagent.pods import quantity
from nodeagent.pods.pod import Pod

QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]

GUARANTEED_OOM_SCORE = -997
BEST_EFFORT_OOM_SCORE = 1000


def qos_class(pod: Pod) -> QosClass:
    """Guaranteed: every container limits cpu and memory to what it requests. BestEffort: none says anything."""
    resources = [container["resources"] for container in pod.all_containers()]
    if all(not _amounts(each, kind) for each in resources for kind in ("requests", "limits")):
        return "BestEffort"
    for each in resources:
        limits, requests = _amounts(each, "limits"), _amounts(each, "requests")
        if set(limits) != {"cpu", "memory"} or limits != requests:
            return "Burstable"
    return "Guaranteed"


def oom_score_adj(pod: Pod, container: dict[str, Any], node_memory: int) -> int:
    """For /proc/PID/oom_score_adj. The more of the node's memory (bytes) a burstable container asks, the safer."""
    match qos_class(pod):
        case "Guaranteed":
            return GUARANTEED_OOM_SCORE
        case "BestEffort":
            return BEST_EFFORT_OOM_SCORE
    request = quantity.whole(container["resources"]["requests"].get("memory", 0))
    score = 1000 - 1000 * request // node_memory
    # Never as safe as a guaranteed container, never as exposed as one without requests.
    return min(max(score, 1000 + GUARANTEED_OOM_SCORE), BEST_EFFORT_OOM_SCORE - 1)


def cgroup_parent(pod: Pod, *, root: str = "/", systemd: bool = False) -> str:
    """kubepods[/burstable|/besteffort]/pod<uid> below `root`, or the systemd driver's name of the same slice."""
    qos = qos_class(pod)
    parts = [*filter(None, root.split("/")), "kubepods", *([] if qos == "Guaranteed" else [qos.lower()])]
    if systemd:
        # A dash in a slice's name means a level, so those of the uid become underscores.
        return "-".join([*parts, f"pod{pod.uid.replace('-', '_')}"]) + ".slice"
    return "/" + "/".join([*parts, f"pod{pod.uid}"])


def _amounts(resources: dict[str, Any], kind: str) -> dict[str, Any]:
    values = resources.get(kind) or {}
    amounts = {name: quantity.parse(value) for name, value in values.items() if name in ("cpu", "memory")}
    return {name: amount for name, amount in amounts.items() if amount}
