"""A pod's v1.PodStatus, from its manifest, what is observed and what is planned (pkg/kubelet/kubelet_pods.go)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nodeagent.node import Node
from nodeagent.pods.pod import Pod, is_sidecar
from nodeagent.pods.qos import qos_class
from nodeagent.sync.observed import SECOND, Container, Observed, State
from nodeagent.sync.plan import Plan, Waiting


@dataclass(frozen=True, slots=True)
class View:
    """All that a status is made of. `trouble` keeps the pod as a whole from running; `message_of` reads what a dead
    container left as its last words."""

    pod: Pod
    node: Node
    observed: Observed
    plan: Plan
    message_of: Callable[[Container], str]
    trouble: Waiting | None = None
    waiting: dict[str, Waiting] = field(default_factory=dict)


def pod_status(view: View) -> dict[str, Any]:
    init = [_container_status(view, container) for container in view.pod.init_containers]
    main = [_container_status(view, container) for container in view.pod.containers]
    sandbox = view.plan.sandbox
    ips = sandbox.ips if sandbox else ()
    if sandbox and view.pod.spec.get("hostNetwork"):
        ips = view.node.addresses
    status: dict[str, Any] = {
        "phase": _phase(view, init, main),
        "conditions": _conditions(view, init, main),
        "hostIP": view.node.addresses[0],
        "hostIPs": [{"ip": ip} for ip in view.node.addresses],
        "qosClass": qos_class(view.pod),
        "containerStatuses": main,
    }
    if init:
        status["initContainerStatuses"] = init
    if ips:
        status |= {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}
    if view.observed.sandboxes:
        status["startTime"] = timestamp(min(each.created_at for each in view.observed.sandboxes))
    reason, message = _reason(view)
    return status | ({"reason": reason} if reason else {}) | ({"message": message} if message else {})


def timestamp(ns: int) -> str:
    """RFC 3339 in UTC, to the second as metav1.Time has it."""
    return datetime.fromtimestamp(ns // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _reason(view: View) -> tuple[str, str]:
    if view.plan.over:
        return view.plan.over.reason, view.plan.over.message
    return (view.trouble.reason, view.trouble.message) if view.trouble else ("", "")


def _phase(view: View, init: list[dict[str, Any]], main: list[dict[str, Any]]) -> str:
    if view.plan.over:
        return view.plan.over.phase
    started = [status for status in main if "running" in status["state"] or _has_ended(status)]
    initialized = all(_init_done(view, status) for status in init)
    return "Running" if len(started) == len(main) and initialized else "Pending"


def _has_ended(status: dict[str, Any]) -> bool:
    return "terminated" in status["state"] or "terminated" in status["lastState"]


def _init_done(view: View, status: dict[str, Any]) -> bool:
    if is_sidecar(view.pod.container(status["name"])):
        return bool(status["started"])
    ended = status["state"].get("terminated")
    return bool(ended and ended["exitCode"] == 0)


def _conditions(view: View, init: list[dict[str, Any]], main: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without transition times: those would be state of the agent, and the agent keeps none."""
    not_ready = [status["name"] for status in main if not status["ready"]]
    not_initialized = [status["name"] for status in init if not _init_done(view, status)]
    completed = "PodCompleted" if view.plan.over else ""
    ready = _condition(
        "Ready",
        not not_ready,
        completed or "ContainersNotReady",
        f"containers that are not ready: {', '.join(not_ready)}",
    )
    return [
        _condition("PodReadyToStartContainers", view.plan.sandbox is not None, "NoSandbox", ""),
        _condition(
            "Initialized",
            not not_initialized,
            "ContainersNotInitialized",
            f"containers that are not initialized: {', '.join(not_initialized)}",
        ),
        ready,
        ready | {"type": "ContainersReady"},
        _condition("PodScheduled", True, "", ""),
    ]


def _condition(kind: str, true: bool, reason: str, message: str) -> dict[str, Any]:
    condition: dict[str, Any] = {"type": kind, "status": "True" if true else "False"}
    if not true:
        condition |= {"reason": reason} | ({"message": message} if message else {})
    return condition


def _container_status(view: View, container: dict[str, Any]) -> dict[str, Any]:
    name = container["name"]
    every = view.observed.all_of(name)
    latest = every[0] if every else None
    waiting = view.waiting.get(name) or view.plan.waiting.get(name)
    running = latest is not None and latest.state is State.RUNNING
    ended = [each for each in every if each.state in (State.EXITED, State.UNKNOWN)]
    status: dict[str, Any] = {"name": name, "image": container["image"], "imageID": "", "lastState": {}}
    if latest is not None and latest.state is State.EXITED and waiting is None:
        status["state"] = {"terminated": _terminated(view, latest)}
        ended = ended[1:]
    elif running and latest is not None:
        status["state"] = {"running": {"startedAt": timestamp(latest.started_at)}}
    else:
        status["state"] = {"waiting": _waiting(view, waiting)}
    if ended:
        status["lastState"] = {"terminated": _terminated(view, ended[0])}
    exit_code = status["state"].get("terminated", {}).get("exitCode")
    init_done = exit_code == 0 and any(each is container for each in view.pod.init_containers)
    return status | {
        "ready": running or init_done,
        "started": running,
        "restartCount": latest.attempt if latest else 0,
        "imageID": latest.image_id if latest else "",
        **({"containerID": latest.id} if latest else {}),
    }


def _waiting(view: View, waiting: Waiting | None) -> dict[str, Any]:
    why = waiting or view.trouble or Waiting("PodInitializing" if view.pod.init_containers else "ContainerCreating")
    return {"reason": why.reason} | ({"message": why.message} if why.message else {})


def _terminated(view: View, ended: Container) -> dict[str, Any]:
    reason = ended.reason or ("Error" if ended.exit_code else "Completed")
    message = view.message_of(ended) or ended.message
    return {
        "exitCode": ended.exit_code,
        "reason": reason,
        "startedAt": timestamp(ended.started_at),
        "finishedAt": timestamp(ended.finished_at),
        "containerID": ended.id,
        **({"message": message} if message else {}),
    }


def document_of(pod: Pod, status: dict[str, Any]) -> dict[str, Any]:
    """The pod as the API shows it: the manifest with its status."""
    return pod.document | {"metadata": dict(pod.metadata), "status": status}
