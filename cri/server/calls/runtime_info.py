"""Version, Status, RuntimeConfig and UpdateRuntimeConfig: what the runtime says of itself, and is told."""

from __future__ import annotations

import json
from importlib import metadata

from cni.errors import CniError
from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon
from cri.server.handlers import Found, handler_messages, handlers_condition
from cri.server.pod_network import set_pod_cidr
from cri.server.security.capabilities import grantable
from cri.server.specs.resources import least_oom_score_adj
from runtime.linux.caps import NAMES

API_VERSION = "v1"
VERSION = metadata.version("nodeagent")


async def version(daemon: Daemon, request: api.VersionRequest) -> api.VersionResponse:
    return api.VersionResponse(
        version="0.1.0",  # of the kubelet's own runtime API, a constant in every runtime
        runtime_name="crid",
        runtime_version=VERSION,
        runtime_api_version=API_VERSION,
    )


async def status(daemon: Daemon, request: api.StatusRequest) -> api.StatusResponse:
    """RuntimeReady while crid runs; NetworkReady as the network's own STATUS says."""
    handlers = await daemon.handlers.all()
    mappable = not await daemon.userns.problem()
    conditions = [_runtime_condition(daemon, handlers), await _network_condition(daemon)]
    if others := handlers_condition(handlers):
        conditions.append(others)
    response = api.StatusResponse(
        status=api.RuntimeStatus(conditions=conditions),
        runtime_handlers=handler_messages(handlers, daemon.handlers.default),
        features=api.RuntimeFeatures(
            supplemental_groups_policy=True, user_namespaces_host_network=mappable, mount_options=True
        ),
    )
    for handler in response.runtime_handlers:
        handler.features.user_namespaces = mappable and not daemon.handlers.options(handler.name).path
    if request.verbose:
        response.info["config"] = json.dumps(_config(daemon))
        response.info["nri"] = json.dumps(daemon.nri.status())
        response.info["network"] = json.dumps(_network(daemon))
        response.info["tidied"] = json.dumps(daemon.tidied.is_set())
        response.info["security"] = json.dumps(_security(daemon) | {"user_namespaces": mappable})
        pulls = {name: {"done": each.done, "total": each.total} for name, each in daemon.pulls.items()}
        response.info["pulls"] = json.dumps(pulls)
    return response


def _security(daemon: Daemon) -> dict[str, object]:
    """What of security contexts has an effect here; containers that ask for more get what there is."""
    return {
        "apparmor": daemon.apparmor.enabled,
        "selinux": daemon.selinux.enabled,
        "least_oom_score_adj": least_oom_score_adj(),
        "missing_capabilities": sorted(set(NAMES) - grantable()),
    }


def _runtime_condition(daemon: Daemon, handlers: dict[str, Found]) -> api.RuntimeCondition:
    """Ready, unless the runtime of every pod that asks for none is missing."""
    problem = handlers[daemon.handlers.default].problem
    reason = "DefaultRuntimeMissing" if problem else ""
    return api.RuntimeCondition(type="RuntimeReady", status=not problem, reason=reason, message=problem)


async def _network_condition(daemon: Daemon) -> api.RuntimeCondition:
    try:
        await daemon.cni.status()
    except (CniError, OSError) as error:
        return api.RuntimeCondition(type="NetworkReady", reason="NetworkPluginNotReady", message=str(error))
    return api.RuntimeCondition(type="NetworkReady", status=True)


def _config(daemon: Daemon) -> dict[str, object]:
    config = daemon.config
    return {
        "root": str(config.root),
        "state": str(config.state),
        "listen": str(config.listen),
        "network": {"conf_dir": str(config.network.conf_dir), "subnet": config.network.subnet},
        "pods": len(daemon.store.sandboxes),
        "containers": len(daemon.store.containers),
        "default_runtime": config.default_runtime,
        "runtimes": {runtime.name: runtime.path or "built in" for runtime in config.runtimes},
        "cdi_spec_dirs": [str(directory) for directory in config.cdi_spec_dirs],
    }


async def runtime_config(daemon: Daemon, request: api.RuntimeConfigRequest) -> api.RuntimeConfigResponse:
    response = api.RuntimeConfigResponse()
    response.linux.cgroup_driver = api.CGROUPFS
    return response


def _network(daemon: Daemon) -> dict[str, object]:
    """The network that the next pod gets, and the files that could not be used."""
    try:
        network = daemon.cni.network()
        found = {"source": network.source, **network.to_json()}
    except CniError as error:
        found = {"problem": str(error)}
    return found | {"problems": [str(problem) for problem in daemon.cni.problems]}


async def update_runtime_config(
    daemon: Daemon, request: api.UpdateRuntimeConfigRequest
) -> api.UpdateRuntimeConfigResponse:
    """pod_cidr becomes the subnet of the default network; a node with CNI configuration of its own keeps that."""
    if cidr := request.runtime_config.network_config.pod_cidr:
        set_pod_cidr(daemon, cidr)
    return api.UpdateRuntimeConfigResponse()
