"""Undoing what the ledger has: at start, of pods that do not live; at the end, of networks that nobody uses.

What was planned but not done yet, or undone but not struck out yet, is undone again, which is fine: DEL is idempotent.
A failure concerns one attachment; it is reported, its entries stay, and the others are gone on with.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from cni import sysctl
from cni.attachment import Attachment
from cni.conf import parse_network
from cni.errors import CniError
from cni.firewall import Element
from cni.journal import network_holder
from cni.mending import reconnect_at_start
from cni.worker import Worker
from runtime.linux.ledger import Effect

log = logging.getLogger(__name__)


def recover(worker: Worker, live: frozenset[str]) -> list[str]:
    """Undo everything of containers that are not live; returns what failed, in words.

    What the others need of the firewall and of bridges is made again: somebody may have flushed or removed it.
    """
    failed = [*_delete_attachments(worker, live), *_delete_cached(worker, live), *_undo_leftovers(worker, live)]
    failed += [*_renew_firewalls(worker), *reconnect_at_start(worker)]
    try:
        worker.remove_links()
    except OSError as error:
        failed.append(f"links of deleted pods: {error}")
    return failed


def _renew_firewalls(worker: Worker) -> Iterator[str]:
    for table in sorted({effect.detail["table"] for effect in worker.ledger.entries(kind="nft")}):
        try:
            worker.host.firewall(table).renew()
        except CniError as error:
            yield f"nftables table {table}: {error}"


def _delete_attachments(worker: Worker, live: frozenset[str]) -> Iterator[str]:
    for effect in worker.ledger.entries(kind="cni"):
        if effect.holder in live:
            continue
        container_id, _, ifname = effect.key.rpartition("/")
        attachment = Attachment(container_id, str(effect.detail.get("netns", "")), ifname)
        log.info("network attachment %s is undone: its pod does not live", effect.key)
        try:
            worker.delete(parse_network(effect.detail["network"]), attachment)
        except (CniError, OSError) as error:
            yield f"attachment {effect.key}: {error}"


def _delete_cached(worker: Worker, live: frozenset[str]) -> Iterator[str]:
    """Attachments that the result cache knows and the ledger does not: of a ledger that was lost."""
    known = worker.attached()
    for cached in list(worker.cache.all()):
        if cached.container_id in live or (cached.container_id, cached.ifname) in known or cached.network is None:
            continue
        try:
            worker.delete(cached.network, cached.attachment)
        except (CniError, OSError) as error:
            yield f"cached attachment {cached.container_id}/{cached.ifname}: {error}"


def _undo_leftovers(worker: Worker, live: frozenset[str]) -> Iterator[str]:
    """Effects whose attachment is gone: links that were cut when the process died, before it removed them."""
    attached = {f"{container_id}/{ifname}" for container_id, ifname in worker.attached()}
    for effect in worker.ledger.entries():
        attachment = effect.detail.get("attachment")
        if not attachment or attachment in attached or effect.holder in live:
            continue
        try:
            _undo(worker, effect)
        except (CniError, OSError) as error:
            yield f"{effect.kind} {effect.key}: {error}"
        else:
            worker.ledger.strike(effect)


def _undo(worker: Worker, effect: Effect) -> None:
    detail: dict[str, Any] = dict(effect.detail)
    if effect.kind == "link":
        worker.host.ports.remove(effect.key)
    elif effect.kind == "nft":
        worker.host.firewall(detail["table"]).remove(Element.from_json(detail))
    elif effect.kind == "ip":
        store = worker.host.leases(detail["data_dir"], detail["network"])
        with store.locked():
            store.release((detail["owner"][0], detail["owner"][1]))
    elif effect.kind == "route":
        # Not at the top: a crid that starts imports this module, and answers before pyroute2 is imported.
        from cni import localhost6

        localhost6.remove_way(worker.host.netlink, effect.key)
    elif effect.kind == "sysctl" and sysctl.read(effect.key) is not None:
        sysctl.write(effect.key, detail["was"])


def teardown(worker: Worker) -> list[str]:
    """Remove bridges and rules, and put settings back; returns what was left and why."""
    attached = worker.attached()
    if attached:
        return [f"{len(attached)} pods are attached: bridges, rules and settings stay"]
    worker.remove_links()
    shared = [effect for effect in worker.ledger.entries() if effect.holder.startswith(network_holder(""))]
    # Settings of a bridge go before the bridge does.
    order = ("nft", "sysctl", "route", "link")
    failed: list[str] = []
    for effect in sorted(shared, key=lambda effect: order.index(effect.kind)):
        try:
            _undo(worker, effect)
        except (CniError, OSError) as error:
            failed.append(f"{effect.kind} {effect.key}: {error}")
        else:
            worker.ledger.strike(effect)
    for table in {str(effect.detail["table"]) for effect in shared if effect.kind == "nft"}:
        worker.host.firewall(table).delete_if_unused()
    return failed
