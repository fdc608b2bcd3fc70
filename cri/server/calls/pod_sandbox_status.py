"""PodSandboxStatus."""

from __future__ import annotations

import json
import time

from google.protobuf.json_format import MessageToDict

from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon
from cri.server.pods import Sandbox
from cri.server.statuses import container_statuses, sandbox_status


async def pod_sandbox_status(daemon: Daemon, request: api.PodSandboxStatusRequest) -> api.PodSandboxStatusResponse:
    """The pod and all of its containers at one moment."""
    sandbox = daemon.store.sandboxes.get(request.pod_sandbox_id)
    return api.PodSandboxStatusResponse(
        status=sandbox_status(sandbox),
        containers_statuses=container_statuses(sandbox),
        timestamp=time.time_ns(),
        info={"info": json.dumps(_info(daemon, sandbox))} if request.verbose else {},
    )


def _info(daemon: Daemon, sandbox: Sandbox) -> dict[str, object]:
    """What helps to look into a pod from the host.

    runtimeSpec.linux.namespaces is where network tools of other projects look for the path of the pod's netns.
    """
    namespaces = [{"type": "network", "path": sandbox.netns}] if sandbox.netns else []
    return {
        "pid": sandbox.pod.shim.pid if sandbox.pod is not None else 0,
        "networkNamespace": sandbox.netns,
        "cgroup": sandbox.cgroup,
        "directory": str(daemon.sandbox_directory(sandbox.id)),
        "ips": list(sandbox.ips),
        "config": MessageToDict(sandbox.config, preserving_proto_field_name=True),
        "runtimeSpec": {"linux": {"cgroupsPath": sandbox.cgroup, "namespaces": namespaces}},
    }
