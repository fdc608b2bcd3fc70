"""Pods that live get back what somebody has taken away from under them: the bridge, by `ip link del`.

Their ports outlive it without a master. Who makes the bridge again, which is the next ADD or a start of crid, makes
them its ports again: every attachment whose ADD is through is looked at, with the result that was kept of it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator

from cni.attachment import Attachment
from cni.conf import NetworkConf
from cni.errors import CniError
from cni.journal import Journal, network_holder
from cni.result import Result
from cni.worker import Worker

log = logging.getLogger(__name__)


def add(worker: Worker, network: NetworkConf, attachment: Attachment, sock: socket.socket | None) -> Result:
    """Worker.add(), and pods of former days are connected again where it has made their bridge anew."""
    try:
        return worker.add(network, attachment, sock)
    finally:
        if worker.host.new_bridges():
            for trouble in reconnect(worker):
                log.warning("%s", trouble)


def reconnect(worker: Worker) -> Iterator[str]:
    """Do it for all attachments; yields what failed, in words."""
    attached = worker.attached()
    for cached in list(worker.cache.all()):
        if (cached.container_id, cached.ifname) not in attached or cached.network is None or cached.result is None:
            continue
        try:
            chain = worker.chain(cached.network)
            chain.mend(cached.attachment, worker.site(Journal(worker.ledger)), cached.result)
        except (CniError, OSError) as error:
            yield f"attachment {cached.attachment.key} is not connected again: {error}"


def reconnect_at_start(worker: Worker) -> Iterator[str]:
    """The same where a link that networks share is not there any more."""
    links = (effect for effect in worker.ledger.entries(kind="link") if effect.holder.startswith(network_holder("")))
    if any(not os.path.exists(f"/sys/class/net/{effect.key}") for effect in links):
        yield from reconnect(worker)
