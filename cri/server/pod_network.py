"""A sandbox's place in the network, and the default network of a node that has no CNI configuration."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from cni.attachment import Attachment
from cni.default import default_conflist
from cni.errors import InvalidConfig
from cri.proto import api_pb2 as api
from cri.server.bandwidth import bandwidth
from cri.server.config import NetworkConfig
from cri.server.errors import InvalidRequest
from cri.server.pods import Sandbox

if TYPE_CHECKING:
    from cri.server.daemon import Daemon

#: Kind and id of the record that keeps what UpdateRuntimeConfig has told us.
SETTING, POD_CIDR = "setting", "pod_cidr"


#: Addresses: the network's own, the bridge's, a pod's, and the broadcast one.
_SMALLEST = 4


def pod_network(network: NetworkConfig, cidr: str) -> dict[str, Any]:
    """The default network; `cidr` is one subnet, or two with a comma between them. Raises cni.InvalidConfig.

    Bridge and nftables table are named alike, so that two daemons on one host do not meet in either.
    """
    table = "nodeagent_" + re.sub(r"\W", "_", network.bridge)
    return default_conflist(network.bridge, [part.strip() for part in cidr.split(",")], nft_table=table)


def set_pod_cidr(daemon: Daemon, cidr: str) -> None:
    """Let new pods have addresses of another subnet, from now on and after a restart too; raises InvalidRequest."""
    try:
        conflist = pod_network(daemon.config.network, cidr)
    except InvalidConfig as error:
        raise InvalidRequest(f"pod_cidr {cidr[:80]!r}: {error}") from error
    for part in cidr.split(","):
        if (network := ipaddress.ip_network(part.strip())).num_addresses < _SMALLEST:
            raise InvalidRequest(f"pod_cidr {network} has no address for a pod; the smallest that has is a /30 or /126")
    daemon.records.put(SETTING, POD_CIDR, {"cidr": cidr})
    daemon.cni.set_default(conflist)


def attachment_of(sandbox: Sandbox) -> Attachment:
    """The sandbox's place in the pod network, for CNI."""
    metadata = sandbox.config.metadata
    return Attachment(
        container_id=sandbox.id,
        netns_path=sandbox.netns,
        netlink=sandbox.pod.netlink if sandbox.pod is not None else None,
        args={
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": metadata.namespace,
            "K8S_POD_NAME": metadata.name,
            "K8S_POD_INFRA_CONTAINER_ID": sandbox.id,
            "K8S_POD_UID": metadata.uid,
        },
        capability_args=_capability_args(sandbox),
    )


def _capability_args(sandbox: Sandbox) -> dict[str, Any]:
    """What plugins with these capabilities get as runtimeConfig (CNI CONVENTIONS.md); hostPort 0 is no mapping."""
    config = sandbox.config
    mappings = [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": api.Protocol.Name(port.protocol).lower(),
            "hostIP": port.host_ip,
        }
        for port in config.port_mappings
        if port.host_port
    ]
    dns = config.dns_config
    args: dict[str, Any] = {"cgroupPath": sandbox.cgroup}
    if mappings:
        args["portMappings"] = mappings
    if limits := _bandwidth(config):
        args["bandwidth"] = limits
    if config.HasField("dns_config"):
        args["dns"] = {"servers": [*dns.servers], "searches": [*dns.searches], "options": [*dns.options]}
    return args


def _bandwidth(config: api.PodSandboxConfig) -> dict[str, int]:
    try:
        return bandwidth(config.annotations)
    except InvalidRequest:  # no pod is made with those, but one of an earlier version has to come to its end
        return {}
