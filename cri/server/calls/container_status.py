"""ContainerStatus."""

from __future__ import annotations

import json

from google.protobuf.json_format import MessageToDict

from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon
from cri.server.pods import Container
from cri.server.statuses import container_status
from runtime.client import ContainerError


async def status_of_container(daemon: Daemon, request: api.ContainerStatusRequest) -> api.ContainerStatusResponse:
    container = daemon.store.containers.get(request.container_id)
    return api.ContainerStatusResponse(
        status=container_status(container),
        info={"info": json.dumps(await _info(container))} if request.verbose else {},
    )


async def _info(container: Container) -> dict[str, object]:
    """What helps to look into a container from the host: its pid, what was asked for, and all that was settled.

    The names are containerd's, as tools for security and debugging look for them.
    """
    return {
        "sandboxID": container.sandbox.id,
        "pid": await _pid(container),
        "snapshots": container.snapshots,
        "config": MessageToDict(container.config, preserving_proto_field_name=True),
        "runtimeSpec": container.spec.oci,
    }


async def _pid(container: Container) -> int:
    if not container.running or container.sandbox.pod is None:
        return 0
    try:
        return int((await container.sandbox.pod.container_status(container.id))["pid"])
    except (ContainerError, KeyError):  # it ended while we asked
        return 0
