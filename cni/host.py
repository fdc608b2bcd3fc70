"""What plugins use on the host's side: sockets and memory that are made when first needed and shared by all calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cni.firewall import DEFAULT_TABLE, Element, Firewall
from cni.leases import LeaseStore
from cni.nftables import Nftables
from cni.rtnl.socket import Netlink

if TYPE_CHECKING:
    from cni.bridges import Bridges
    from cni.ports import Ports


class Host:
    """One for the life of crid, one for the single call of a plugin that runs as a program."""

    def __init__(self, recall: Callable[[str], Iterable[Element]] | None = None) -> None:
        """`recall` tells which elements a firewall table had, by its name, for when somebody has flushed it."""
        self._recall = recall
        self._lock = threading.RLock()
        self._netlink: Netlink | None = None
        self._bridges: Bridges | None = None
        self._ports: Ports | None = None
        self._nftables = Nftables()
        self._firewalls: dict[str, Firewall] = {}
        self._stores: dict[str, LeaseStore] = {}

    @property
    def netlink(self) -> Netlink:
        """The socket in the host's network namespace."""
        with self._lock:
            if self._netlink is None:
                self._netlink = Netlink.open()
            return self._netlink

    @property
    def bridges(self) -> Bridges:
        """The bridges."""
        with self._lock:
            if self._bridges is None:
                # Not at the top: pyroute2 takes 0.1 s to import, which host-local as a program does not need.
                from cni.bridges import Bridges

                self._bridges = Bridges(self.netlink)
            return self._bridges

    @property
    def ports(self) -> Ports:
        """The host's ends of pods' links."""
        with self._lock:
            if self._ports is None:
                from cni.ports import Ports

                self._ports = Ports(self.netlink)
            return self._ports

    def new_bridges(self) -> bool:
        """Whether bridges were made since the last time that this was asked."""
        return self._bridges is not None and self._bridges.take_new()

    def cut_links(self) -> set[str]:
        """The links that DEL has cut and that may still be there."""
        return self._ports.doomed() if self._ports is not None else set()

    def remove_cut_links(self, gone: Callable[[set[str]], None] = lambda names: None) -> None:
        """Remove the links that DEL has cut, if any; `gone` is told which."""
        if self.cut_links():
            self.ports.remove_cut(gone)

    def firewall(self, table: str = "") -> Firewall:
        """The nftables table of that name."""
        name = table or DEFAULT_TABLE
        with self._lock:
            if name not in self._firewalls:
                firewall = self._firewalls[name] = Firewall(self._nftables, name)
                if self._recall is not None:
                    recall = self._recall
                    firewall.recall = lambda: recall(name)
            return self._firewalls[name]

    def leases(self, data_dir: str, network: str) -> LeaseStore:
        """The addresses that a network has given out."""
        with self._lock:
            store = LeaseStore(data_dir, network)
            return self._stores.setdefault(store.directory, store)

    def close(self) -> None:
        """Close every socket and file."""
        with self._lock:
            for closable in (self._netlink, self._bridges, self._nftables, *self._stores.values()):
                if closable is not None:
                    closable.close()
            self._netlink = self._bridges = self._ports = None
            self._stores.clear()
            self._firewalls.clear()
