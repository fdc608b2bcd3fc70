"""nodectl pods: from the agent, with reasons and back-off; from the runtime alone when no agent answers."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from nodeagent.api.client import AgentUnreachable, get
from nodeagent.ctl.connect import agent_socket, connect
from nodeagent.ctl.find import sandboxes
from nodeagent.ctl.output import age, emit_json, parse_time, plain, table

HEAD = ("NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="say why a pod or container waits or has failed")


def run(given: argparse.Namespace) -> int:
    try:
        pods = get(agent_socket(given), "/pods")
        problems = get(agent_socket(given), "/problems")["items"]
    except AgentUnreachable as error:
        return _from_runtime(given, error)
    if given.output == "json":
        emit_json(pods)
        return 0
    print(table(HEAD, (row(pod) for pod in pods["items"])))
    if given.verbose:
        for pod in pods["items"]:
            for line in reasons(pod):
                print(f"  {pod['metadata']['name']}: {line}")
    for problem in problems:
        place = f"{problem['file']}:{problem['line']}" if problem["line"] else problem["file"]
        kind = "error" if problem["fatal"] else "warning"
        print(
            f"{kind}: manifest {': '.join(filter(None, (place, problem['path'], problem['reason'])))}", file=sys.stderr
        )
    return 0


def row(pod: dict[str, Any]) -> tuple[str, ...]:
    status = pod["status"]
    main = status.get("containerStatuses", [])
    restarts = sum(each["restartCount"] for each in main)
    return (
        pod["metadata"]["namespace"],
        pod["metadata"]["name"],
        f"{sum(each['ready'] for each in main)}/{len(main)}",
        summary(pod),
        str(restarts),
        age(parse_time(status.get("startTime", ""))),
        status.get("podIP", "-"),
    )


def summary(pod: dict[str, Any]) -> str:
    """One word, as kubectl has it: the most telling of what goes on."""
    status = pod["status"]
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for number, each in enumerate(status.get("initContainerStatuses", [])):
        why = _why(each)
        if why and not each["ready"] and why != "Completed":
            return (
                f"Init:{why}" if why != "PodInitializing" else f"Init:{number}/{len(status['initContainerStatuses'])}"
            )
    for each in status.get("containerStatuses", []):
        why = _why(each)
        if why and why not in ("Completed", "PodInitializing"):
            return why
    reason: str = status.get("reason") or {"Succeeded": "Completed"}.get(status["phase"], status["phase"])
    return reason


def _why(status: dict[str, Any]) -> str:
    state = status["state"]
    reason: str = state.get("waiting", state.get("terminated", {})).get("reason", "")
    return reason


def reasons(pod: dict[str, Any]) -> list[str]:
    """Every message that a status has."""
    status = pod["status"]
    lines = [status["message"]] if status.get("message") else []
    for each in status.get("initContainerStatuses", []) + status.get("containerStatuses", []):
        for when in ("state", "lastState"):
            for kind in ("waiting", "terminated"):
                told = each[when].get(kind)
                if told and told.get("message"):
                    lines.append(f"{each['name']}: {told['reason']}: {told['message'].strip()}")
    return lines


def _from_runtime(given: argparse.Namespace, error: AgentUnreachable) -> int:
    with connect(given) as cri:
        found = sandboxes(cri)
    if given.output == "json":
        emit_json({"items": [plain(each) for each in found]})
        return 0
    print(f"note: {error}; this is what the runtime knows", file=sys.stderr)
    states = ("Ready", "NotReady")
    rows = (
        (each.metadata.namespace, each.metadata.name, "-", states[each.state], "-", age(each.created_at), "-")
        for each in found
    )
    print(table(HEAD, rows))
    return 0
