"""A small blocking client of the status API, for nodectl: stdlib only, so that a command starts fast."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMEOUT = 10.0
ANSWER_LIMIT = 64 << 20


class AgentUnreachable(Exception):
    """No agent answers on this socket."""


class AgentRefused(Exception):
    """The agent answered with an error; the message is its own."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("agent", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def describe(health: Mapping[str, Any]) -> str:
    """What /healthz says, in words."""
    runtime, pods = health.get("runtime") or {}, health.get("pods", 0)
    words = [f"node {health.get('node', '?')}"]
    words.append(f"{pods} pod{'' if pods == 1 else 's'} of {health.get('manifests', '?')}")
    if not runtime.get("connected"):
        words.append(f"no runtime on {runtime.get('socket', '?')}: {runtime.get('problem') or 'it does not answer'}")
    if drivers := health.get("drivers"):
        words.append(f"CSI drivers {', '.join(drivers)}")
    if pending := health.get("pendingTeardowns"):
        words.append(f"volumes of ended pods not undone yet: {', '.join(pending)}")
    return "; ".join(words)


def get(path: Path, resource: str, *, timeout: float = TIMEOUT) -> Any:
    """The JSON of GET `resource`. Raises AgentUnreachable, AgentRefused."""
    connection = _UnixConnection(path, timeout)
    try:
        connection.request("GET", resource)
        answer = connection.getresponse()
        value = json.loads(answer.read(ANSWER_LIMIT))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AgentUnreachable(
            f"no node agent answers on {path} ({error}); is it running? see: nodeagent up"
        ) from error
    finally:
        connection.close()
    if answer.status == 404 or answer.status == 400:
        raise AgentRefused(value.get("message", f"status {answer.status}"))
    return value
