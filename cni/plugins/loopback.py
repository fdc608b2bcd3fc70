"""loopback: brings the pod's lo up. In crid that happens when the namespace is made; asking again costs nothing."""

from __future__ import annotations

from cni.call import Call
from cni.errors import CniError
from cni.plugin import Plugin, Site
from cni.result import Interface, IpConfig, Result
from cni.rtnl import links
from cni.rtnl.queries import find_link, list_addresses

NAME = "lo"


class Loopback(Plugin):
    """The plugin; whatever the interface name of the attachment is, it acts on lo."""

    type = "loopback"
    needs_pod = True

    def add(self, call: Call, site: Site) -> Result:
        """Bring lo up; the result is the previous one, or lo with its addresses."""
        pod = site.pod_netlink()
        pod.do(links.link_up(links.LOOPBACK_INDEX, NAME))
        previous = call.previous()
        if previous is not None:
            return previous
        addresses = list_addresses(pod, links.LOOPBACK_INDEX, NAME)
        return Result(
            [Interface(NAME, mac="00:00:00:00:00:00", sandbox=call.netns)],
            [IpConfig(address, interface=0) for address in addresses],
        )

    def delete(self, call: Call, site: Site) -> None:
        """Nothing: lo goes with its namespace, and processes that are still stopping may need it."""

    def check(self, call: Call, site: Site) -> None:
        """lo must be up."""
        link = find_link(site.pod_netlink(), NAME)
        if link is None or not link.is_up:
            raise CniError("loopback: interface lo is down in the pod")

    def status(self, call: Call, site: Site) -> None:
        """Always ready."""

    def gc(self, call: Call, site: Site, valid: frozenset[tuple[str, str]]) -> None:
        """Nothing is kept outside the pod."""


plugin = Loopback()

if __name__ == "__main__":
    from cni.skeleton import run_as_program

    run_as_program(plugin)
