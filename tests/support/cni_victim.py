"""A process that attaches a pod and detaches it again, to be killed at a failpoint on the way.

python -m tests.support.cni_victim ROOT NETNS CONTAINER_ID CONFLIST ATTACHMENT_ARGS
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

from cni.attachment import Attachment
from cni.network import Cni
from runtime.linux.ledger import Ledger
from runtime.linux.namespaces import netlink_socket
from tests.support.netns import inside


async def live_and_die(root: Path, netns: str, container_id: str, conflist: str, capability_args: str) -> None:
    async def netlink() -> socket.socket:
        return inside(netns, netlink_socket)

    ledger = Ledger(root / "ledger.db", "crid")
    cni = Cni(root / "net.d", [root / "bin"], root / "cache", ledger, default_conflist=json.loads(conflist))
    attachment = Attachment(
        container_id,
        netns,
        netlink=netlink,
        capability_args=json.loads(capability_args),
    )
    await cni.add(attachment)
    await cni.delete(attachment)
    await cni.close()
    ledger.close()


if __name__ == "__main__":
    asyncio.run(live_and_die(Path(sys.argv[1]), *sys.argv[2:6]))
