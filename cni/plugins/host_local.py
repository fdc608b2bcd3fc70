"""host-local: gives out addresses of configured ranges and keeps who has them on the local disk.

The directory is that of the reference plugin of this name (cni.leases), so either can go on where the other stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cni.call import Call
from cni.errors import CniError, NotAvailable, TryAgainLater
from cni.ipam import IpamConf, read_ipam_conf, read_resolv_conf, requested_addresses
from cni.leases import LeaseStore, Owner
from cni.plugin import Plugin, Site
from cni.ranges import Address, Range
from cni.result import Dns, IpConfig, Result
from runtime.linux.failpoints import failpoint

#: Lost races for one address in a row; each needs another program that writes without the lock.
RACE_TRIES: Final = 64


class HostLocal(Plugin):
    """The plugin; an IPAM plugin, called by the one that makes the interface."""

    type = "host-local"

    def add(self, call: Call, site: Site) -> Result:
        """Reserve an address of each set; raises CniError when one is taken or none is left."""
        conf = read_ipam_conf(call)
        dns = read_resolv_conf(conf.resolv_conf) if conf.resolv_conf else Dns()
        store = site.host.leases(conf.data_dir, call.network)
        owner = (call.container_id, call.ifname)
        with store.locked():
            _refuse_second(store, conf, owner)
            try:
                ips = _Allocation(call, site, conf, store).run()
            except BaseException:
                store.release(owner)
                raise
        failpoint("cni.host_local.after_lease")
        return Result(ips=ips, routes=list(conf.routes), dns=dns)

    def delete(self, call: Call, site: Site) -> None:
        """Release everything that the attachment has."""
        store = site.host.leases(read_ipam_conf(call).data_dir, call.network)
        with store.locked():
            store.release((call.container_id, call.ifname))
        failpoint("cni.host_local.after_release")

    def check(self, call: Call, site: Site) -> None:
        """The attachment must have an address."""
        store = site.host.leases(read_ipam_conf(call).data_dir, call.network)
        with store.locked():
            if not store.held_by((call.container_id, call.ifname)):
                raise CniError(f"host-local: no address is reserved for {call.attachment} in {store.directory}")

    def status(self, call: Call, site: Site) -> None:
        """Every set must have a free address."""
        conf = read_ipam_conf(call)
        store = site.host.leases(conf.data_dir, call.network)
        with store.locked():
            used = store.addresses()
        for ranges in conf.sets:
            if sum(ranges.find(address) is not None for address in used) >= ranges.size():
                raise NotAvailable(f"host-local: all addresses of {ranges} are in use", f"see {store.directory}")

    def gc(self, call: Call, site: Site, valid: frozenset[tuple[str, str]]) -> None:
        """Release what attachments have that are not valid."""
        store = site.host.leases(read_ipam_conf(call).data_dir, call.network)
        # A lease without an interface name is of the time when there was one interface to a container.
        known = valid | {(container_id, "") for container_id, _ in valid}
        with store.locked():
            for owner in store.owners() - known:
                store.release(owner)


def _refuse_second(store: LeaseStore, conf: IpamConf, owner: Owner) -> None:
    for address in store.held_by(owner):
        if any(ranges.find(address) for ranges in conf.sets):
            raise CniError(
                f"host-local: {owner[0]}/{owner[1]} has address {address} already",
                "ADD was called twice without DEL in between",
            )


@dataclass(slots=True)
class _Allocation:
    """One ADD under the lock: choose addresses, announce them to the journal, reserve them."""

    call: Call
    site: Site
    conf: IpamConf
    store: LeaseStore

    def run(self) -> list[IpConfig]:
        """An address of each set."""
        picks = [self._pick(number, request) for number, request in enumerate(self._requests())]
        self._announce(*(address for address, _ in picks))
        return [self._reserve(number, *pick) for number, pick in enumerate(picks)]

    def _requests(self) -> list[Address | None]:
        """For each set, the address that is asked for; raises CniError for one that is in no set."""
        wanted = requested_addresses(self.call)
        requests: list[Address | None] = []
        for ranges in self.conf.sets:
            request = next((address for address in wanted if ranges.find(address)), None)
            requests.append(request)
            if request is not None:
                wanted.remove(request)
        if wanted:
            raise CniError(f"host-local: requested {', '.join(map(str, wanted))}, which no range set has (left)")
        return requests

    def _pick(self, number: int, request: Address | None) -> tuple[Address, Range]:
        ranges = self.conf.sets[number]
        if request is not None:
            home = ranges.find(request)
            assert home is not None
            if request == home.gateway:
                raise CniError(f"host-local: requested address {request} is the gateway of {home.subnet}")
            if not self.store.is_free(request):
                raise CniError(f"host-local: requested address {request} is in use", f"see {self.store.directory}")
            return request, home
        found = next(ranges.candidates(self.store.last(number), self.store.is_free), None)
        if found is None:
            raise CniError(f"host-local: no address left in {ranges}", f"{self.store.directory} holds who has them")
        return found

    def _announce(self, *addresses: Address) -> None:
        owner = [self.call.container_id, self.call.ifname]
        detail = {"data_dir": self.conf.data_dir, "network": self.call.network, "owner": owner}
        for address in addresses:
            self.site.journal.plan("ip", f"{self.call.network}/{address}", detail)
        self.site.journal.commit()

    def _reserve(self, number: int, address: Address, home: Range) -> IpConfig:
        for _ in range(RACE_TRIES):
            if self.store.reserve(address, (self.call.container_id, self.call.ifname)):
                self.store.set_last(number, address)
                return IpConfig(home.interface(address), home.gateway)
            address, home = self._pick(number, None)
            self._announce(address)
        raise TryAgainLater(f"host-local: another program takes addresses of {self.store.directory} without its lock")


plugin = HostLocal()

if __name__ == "__main__":
    from cni.skeleton import run_as_program

    run_as_program(plugin)
