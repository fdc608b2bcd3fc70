"""What is done for an attachment, in a thread: the chain of plugins, between the ledger before and the cache after."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cni.attachment import Attachment
from cni.cache import Cached, ResultCache
from cni.chain import Chain
from cni.conf import NetworkConf, parse_network
from cni.errors import CniError
from cni.firewall import Element
from cni.host import Host
from cni.journal import Journal
from cni.plugin import Plugin, Site
from cni.result import Result
from cni.rtnl.socket import Netlink
from cni.runner import PluginRunner
from runtime.linux.failpoints import failpoint
from runtime.linux.ledger import Effect, Ledger

log = logging.getLogger(__name__)

#: Where a test can kill, fail or hang an operation (runtime.linux.failpoints).
FAILPOINTS = (
    "cni.add.begin",
    "cni.host_local.after_lease",
    "cni.bridge.after_pair",
    "cni.bridge.after_configure",
    "cni.bridge.after_masquerade",
    "cni.bridge.after_up",
    "cni.portmap.after_map",
    "cni.add.after_chain",
    "cni.add.after_cache",
    "cni.delete.begin",
    "cni.portmap.after_unmap",
    "cni.bridge.after_cut",
    "cni.host_local.after_release",
    "cni.delete.after_chain",
    "cni.delete.after_strike",
)


class Worker:
    """Blocking operations; the caller sees to it that those on one container do not run at the same time."""

    def __init__(
        self, cache_dir: Path, ledger: Ledger, path: tuple[str, ...], builtin: Mapping[str, Plugin], timeout: float
    ) -> None:
        self.ledger = ledger
        self.cache = ResultCache(cache_dir)
        self.host = Host(self._recall)
        self._runner = PluginRunner(builtin, timeout=timeout)
        self._path = path

    def load(self) -> None:
        """Import what the other operations need, so that is_builtin() never blocks."""
        self._runner.load()

    def close(self) -> None:
        """Close sockets and files."""
        self.host.close()

    def status(self, network: NetworkConf) -> None:
        """Raise CniError when the network is not ready."""
        self.chain(network).status(self.site(Journal()))

    def add(self, network: NetworkConf, attachment: Attachment, sock: socket.socket | None) -> Result:
        """ADD; when it fails, DEL, as the specification wants it of a runtime."""
        if _attached(self._effects(attachment)) is not None:
            raise CniError(f"{attachment.key} is attached to a network already", "DEL comes before another ADD")
        chain = self.chain(network)
        chain.require()  # where one is missing nothing was done: DEL, which would need it too, has nothing to undo
        journal = Journal(self.ledger, holder=attachment.container_id, attachment=attachment.key)
        journal.plan("cni", attachment.key, _detail(network, attachment))
        site = self.site(journal, sock)
        failpoint("cni.add.begin")
        try:
            result = chain.add(attachment, site)
            failpoint("cni.add.after_chain")
            self.cache.put(_cached(network, attachment, result))
        except Exception as error:
            self._take_back(network, attachment, error)
            raise
        failpoint("cni.add.after_cache")
        return result

    def network_of(self, attachment: Attachment) -> NetworkConf | None:
        """The network that the ledger has it attached to."""
        known = _attached(self._effects(attachment))
        return parse_network(known.detail["network"]) if known is not None else None

    def is_builtin(self, network: NetworkConf) -> bool:
        """Whether no program is run for it."""
        return self.chain(network).is_builtin()

    def delete(self, network: NetworkConf, attachment: Attachment) -> None:
        """DEL from a network, with the arguments of ADD as the ledger or the cache knows them."""
        if not os.path.exists(attachment.netns_path):
            attachment = replace(attachment, netns_path="")  # optional for DEL, and plugins choke on one that is gone
        effects = self._effects(attachment)
        known = _attached(effects)
        kept = self.cache.get(network.name, attachment.container_id, attachment.ifname)
        if known is not None:
            attachment = _as_added(attachment, known.detail["args"], known.detail["capability_args"])
        elif kept is not None:
            network = kept.network or network
            attachment = _as_added(attachment, kept.args, kept.capability_args)
        elif missing := self._missing(network):
            # ADD is refused for the same reason before it does anything, so there is nothing of it.
            log.info("nothing is known of %s and DEL is left out: %s", attachment.key, missing)
            return
        failpoint("cni.delete.begin")
        self._undo(network, attachment, kept.result if kept is not None else None, effects)

    def _missing(self, network: NetworkConf) -> CniError | None:
        try:
            self.chain(network).require()
        except CniError as error:
            return error
        return None

    def check(self, attachment: Attachment, sock: socket.socket | None) -> None:
        """CHECK with what ADD was done with; raises CniError."""
        known = _attached(self._effects(attachment))
        if known is None:
            raise CniError(f"{attachment.key} is attached to no network")
        network = parse_network(known.detail["network"])
        kept = self.cache.get(network.name, attachment.container_id, attachment.ifname)
        attachment = _as_added(attachment, known.detail["args"], known.detail["capability_args"])
        self.chain(network).check(attachment, self.site(Journal(), sock), kept.result if kept else None)

    def gc(self, network: NetworkConf, keep: set[tuple[str, str]]) -> None:
        """DEL of the attachments that the cache has and that are not to be kept, then GC; raises CniError."""
        if network.disable_gc:
            return
        for cached in list(self.cache.all()):
            if cached.network_name == network.name and (cached.container_id, cached.ifname) not in keep:
                self.delete(cached.network or network, cached.attachment)
        self.chain(network).gc(self.site(Journal()), keep)

    def attached(self) -> set[tuple[str, str]]:
        """(container id, interface) of every attachment in the ledger."""
        keys = (effect.key.rpartition("/") for effect in self.ledger.entries(kind="cni"))
        return {(container_id, ifname) for container_id, _, ifname in keys}

    def has_cut_links(self) -> bool:
        """Whether remove_links() has something to do."""
        return bool(self.host.cut_links())

    def remove_links(self) -> None:
        """Remove the links that DEL has cut and that did not go with their pods; raises OSError."""
        self.host.remove_cut_links(lambda names: self.ledger.strike(*(("link", name) for name in names)))

    def chain(self, network: NetworkConf) -> Chain:
        """The network's plugins, ready to be run."""
        return Chain(network, self._runner, self._path)

    def site(self, journal: Journal, sock: socket.socket | None = None) -> Site:
        """Where a call works."""
        return Site(self.host, journal, self._runner, Netlink(sock) if sock is not None else None)

    def _take_back(self, network: NetworkConf, attachment: Attachment, error: Exception) -> None:
        try:
            self._undo(network, attachment, None, self._effects(attachment))
        except (CniError, OSError) as second:
            error.add_note(f"and DEL after it failed too, it will be tried again: {second}")

    def _undo(
        self, network: NetworkConf, attachment: Attachment, previous: Result | None, effects: list[Effect]
    ) -> None:
        journal = Journal(self.ledger, holder=attachment.container_id, attachment=attachment.key)
        self.chain(network).delete(attachment, self.site(journal), previous)
        failpoint("cni.delete.after_chain")
        self.cache.delete(network.name, attachment.container_id, attachment.ifname)
        lingering = {("link", name) for name in self.host.cut_links()}
        self.ledger.strike(*(effect for effect in effects if (effect.kind, effect.key) not in lingering))
        failpoint("cni.delete.after_strike")

    def _effects(self, attachment: Attachment) -> list[Effect]:
        found = self.ledger.entries(holder=attachment.container_id)
        return [effect for effect in found if effect.detail.get("attachment") == attachment.key]

    def _recall(self, table: str) -> list[Element]:
        details = (effect.detail for effect in self.ledger.entries(kind="nft"))
        return [Element.from_json(dict(detail)) for detail in details if detail.get("table") == table]


def _attached(effects: list[Effect]) -> Effect | None:
    return next((effect for effect in effects if effect.kind == "cni"), None)


def _detail(network: NetworkConf, attachment: Attachment) -> dict[str, Any]:
    return {
        "network": network.to_json(),
        "netns": attachment.netns_path,
        "args": attachment.args,
        "capability_args": attachment.capability_args,
    }


def _cached(network: NetworkConf, attachment: Attachment, result: Result) -> Cached:
    return Cached(
        attachment.container_id,
        attachment.ifname,
        network.name,
        attachment.netns_path,
        attachment.args,
        attachment.capability_args,
        network,
        result,
    )


def _as_added(attachment: Attachment, args: Mapping[str, str], capability_args: Mapping[str, Any]) -> Attachment:
    """The attachment with the arguments of its ADD, which the caller of DEL may not have any more."""
    return replace(attachment, args=dict(args), capability_args=dict(capability_args))
