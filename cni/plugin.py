"""What a built-in plugin is, and what it works with.

A plugin is written once and used in two ways: called by crid in its own process, with sockets and memory that last, and
run as a program of its own by anybody (cni.skeleton), with the same things made for one call. It does not know which.
Its code is plain and blocking: what it asks of the kernel is answered within the call, so in crid it runs in a thread.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from cni.call import Call
from cni.errors import CniError, InvalidConfig, UnsupportedField
from cni.host import Host
from cni.journal import Journal
from cni.result import Result
from cni.rtnl.socket import Netlink


class Runner(Protocol):
    """Runs a plugin by its type: built in, or a program."""

    def run(self, kind: str, call: Call, site: Site) -> Result | None:
        """The result of ADD, None of every other command; raises CniError."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where one call works: the host, the pod's network namespace, the journal of effects, and other plugins."""

    host: Host
    journal: Journal
    runner: Runner
    pod: Netlink | None = None

    def pod_netlink(self) -> Netlink:
        """The socket in the pod's network namespace; raises CniError when the caller gave none."""
        if self.pod is None:
            raise CniError("no access to the pod's network namespace", "the attachment came without a netlink socket")
        return self.pod


class Plugin(abc.ABC):
    """A built-in plugin: one method per command of the specification."""

    #: The name of its program.
    type: ClassVar[str]
    #: Whether ADD and CHECK work inside the pod's network namespace.
    needs_pod: ClassVar[bool] = False
    #: Options of the reference plugin of this name that ours does not have.
    unsupported: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def add(self, call: Call, site: Site) -> Result:
        """ADD: connect, or change what is connected. Raises CniError or OSError; what was done stays for DEL."""

    @abc.abstractmethod
    def delete(self, call: Call, site: Site) -> None:
        """DEL: undo ADD as far as it got; nothing to undo is success."""

    @abc.abstractmethod
    def check(self, call: Call, site: Site) -> None:
        """CHECK: raise CniError when what ADD made is not there any more."""

    @abc.abstractmethod
    def status(self, call: Call, site: Site) -> None:
        """STATUS: raise NotAvailable when ADD would fail for every pod."""

    @abc.abstractmethod
    def gc(self, call: Call, site: Site, valid: frozenset[tuple[str, str]]) -> None:
        """GC: free what belongs to attachments of the network other than the valid (container id, interface)."""

    def mend(self, call: Call, site: Site) -> None:  # noqa: B027 - most plugins have nothing that others take away
        """Put back on the host what ADD has made there and somebody has removed; the pod itself is not touched.

        `call` is that of CHECK, the command which would complain. Raises CniError, OSError.
        """

    def missing_option(self, config: Mapping[str, Any]) -> str | None:
        """The first option that a configuration uses and ours does not have."""
        return next((key for key in self.unsupported if config.get(key)), None)


def dispatch(plugin: Plugin, call: Call, site: Site) -> Result | None:
    """Carry out a call; the result of ADD, None of every other command."""
    if call.command == "ADD":
        if (option := plugin.missing_option(call.config)) is not None:
            raise UnsupportedField(
                f"plugin {plugin.type}: unsupported option {option}={call.config[option]!r}",
                f"the reference {plugin.type!r} plugin has it: install that in one of {', '.join(call.path)}",
            )
        return plugin.add(call, site)
    if call.command == "GC":
        valid = call.config.get("cni.dev/valid-attachments") or []
        plugin.gc(call, site, frozenset((item["containerID"], item["ifname"]) for item in valid))
        return None
    if call.command == "DEL":
        # ADD refuses what it cannot read before it does anything, so there is nothing to undo either; and a pod
        # that could never start must not be one that can never be deleted.
        with contextlib.suppress(InvalidConfig):
            plugin.delete(call, site)
        return None
    action = {"CHECK": plugin.check, "STATUS": plugin.status}[call.command]
    action(call, site)
    return None
