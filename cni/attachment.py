"""What a pod's attachment to a network is, as a runtime asks for it."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from cni.call import Call, check_args
from cni.names import check_container_id, check_ifname


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of one pod, identified by container id and interface name (SPEC.md, section 3).

    `netlink` opens a NETLINK_ROUTE socket inside the pod's network namespace; what it returns is closed by us. The
    built-in plugins need it for ADD and CHECK. `args` become CNI_ARGS; of `capability_args` each plugin
    gets those that its configuration declares (CONVENTIONS.md: portMappings, bandwidth, ipRanges, dns, mac, ...).
    """

    container_id: str
    netns_path: str
    ifname: str = "eth0"
    netlink: Callable[[], Awaitable[socket.socket]] | None = None
    args: dict[str, str] = field(default_factory=dict)
    capability_args: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What the ledger knows it by."""
        return f"{self.container_id}/{self.ifname}"

    def validate(self) -> None:
        """Raise InvalidEnvironment for parameters that cannot be passed on."""
        check_container_id(self.container_id)
        check_ifname(self.ifname)
        check_args(self.args)

    def call(self, command: str, config: dict[str, Any], path: tuple[str, ...]) -> Call:
        """A command for a plugin, on this attachment."""
        return Call(
            command=command,
            config=config,
            container_id=self.container_id,
            netns=self.netns_path,
            ifname=self.ifname,
            args=self.args,
            path=path,
        )
