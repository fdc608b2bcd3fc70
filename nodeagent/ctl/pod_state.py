"""A pod's state in one word, as `kubectl get pods` has it: the most telling of all that goes on in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cri.proto import api_pb2 as api
from nodeagent.ctl.world import Pod


@dataclass(frozen=True, slots=True)
class State:
    """`message` says why a pod waits or has failed, and when it is tried again; empty when all is well."""

    status: str
    ready: int
    total: int
    restarts: int
    message: str = ""


def state_of(pod: Pod) -> State:
    return _told(pod.document) if pod.document and "status" in pod.document else _seen(pod)


def _told(document: dict[str, Any]) -> State:
    """From the agent's v1.PodStatus."""
    status = document["status"]
    main = status.get("containerStatuses", [])
    return State(
        _word(document, main, status.get("initContainerStatuses", [])),
        sum(each["ready"] for each in main),
        len(main),
        sum(each["restartCount"] for each in main),
        "; ".join(_reasons(status)),
    )


def _word(document: dict[str, Any], main: list[dict[str, Any]], init: list[dict[str, Any]]) -> str:
    status = document["status"]
    if document["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for number, each in enumerate(init):
        reason = _why(each)
        if reason and reason != "Completed" and not each["ready"]:
            return f"Init:{number}/{len(init)}" if reason == "PodInitializing" else f"Init:{reason}"
    if status["phase"] == "Failed" and status.get("reason"):
        return str(status["reason"])  # Evicted, DeadlineExceeded: how its containers ended follows from that
    for each in main:
        reason = _why(each)
        if reason and reason not in ("Completed", "PodInitializing"):
            return reason
    word: str = status.get("reason") or status["phase"]
    return "Completed" if word == "Succeeded" else word


def _why(status: dict[str, Any]) -> str:
    state = status["state"]
    reason: str = (state.get("waiting") or state.get("terminated") or {}).get("reason", "")
    return reason


def _reasons(status: dict[str, Any]) -> list[str]:
    """Messages of the pod and of its containers, each once."""
    reasons = [status["message"]] if status.get("message") else []
    for each in status.get("initContainerStatuses", []) + status.get("containerStatuses", []):
        waiting = each["state"].get("waiting") or {}
        ended = each["state"].get("terminated") or (each["lastState"].get("terminated") if waiting else None) or {}
        if waiting.get("message"):
            reasons.append(f"{each['name']}: {waiting['message'].strip()}")
        if ended.get("exitCode"):
            words = f"{ended.get('reason', 'Error')}, exit code {ended['exitCode']}"
            message = ended.get("message", "").strip()
            reasons.append(f"{each['name']}: {words}" + (f": {message}" if message else ""))
    return list(dict.fromkeys(reasons))


def _seen(pod: Pod) -> State:
    """From what the runtime lists: no readiness, no plans."""
    containers = list(pod.latest().values())
    running = sum(each.state == api.CONTAINER_RUNNING for each in containers)
    restarts = sum(each.metadata.attempt for each in containers)
    if pod.sandbox is None or pod.sandbox.state != api.SANDBOX_READY:
        status = "NotReady"
    elif running or not containers:
        status = "Running"
    else:
        status = "Created" if all(each.state == api.CONTAINER_CREATED for each in containers) else "Exited"
    return State(status, running, len(containers), restarts)
