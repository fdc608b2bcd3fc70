"""Exec, Attach and PortForward: check that there is something to connect to, and hand out a URL."""

from __future__ import annotations

from cri.proto import api_pb2 as api
from cri.server.calls.exec_sync import runnable, running_container
from cri.server.daemon import Daemon
from cri.server.errors import InvalidRequest, WrongState


async def exec(daemon: Daemon, request: api.ExecRequest) -> api.ExecResponse:
    request.container_id = runnable(daemon, request.container_id, request.cmd).id
    return api.ExecResponse(url=daemon.streaming.prepare_exec(request))


async def attach(daemon: Daemon, request: api.AttachRequest) -> api.AttachResponse:
    container = running_container(daemon, request.container_id)
    if request.tty != container.config.tty:
        has = "has a" if container.config.tty else "has no"
        raise InvalidRequest(f"attach with tty={request.tty}, but container {container.name} {has} terminal")
    request.container_id = container.id
    return api.AttachResponse(url=daemon.streaming.prepare_attach(request))


async def port_forward(daemon: Daemon, request: api.PortForwardRequest) -> api.PortForwardResponse:
    sandbox = daemon.store.sandboxes.get(request.pod_sandbox_id)
    if not sandbox.ready:
        raise WrongState(f"sandbox {sandbox.id[:13]} of pod {sandbox.name} is not ready; it has no ports")
    request.pod_sandbox_id = sandbox.id
    return api.PortForwardResponse(url=daemon.streaming.prepare_port_forward(request))
