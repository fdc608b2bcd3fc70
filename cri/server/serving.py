"""The daemon itself: puts the parts together, recovers what runs, serves until told to stop.

SIGTERM and SIGINT stop it gracefully: no new calls, those under way come to their end, shims and containers go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

import grpc.aio
from grpc_reflection.v1alpha import reflection

from cri.proto.services import methods
from cri.server.answers import ANSWERS
from cri.server.assembly import assemble
from cri.server.config import Config
from cri.server.daemon import Daemon
from cri.server.listening import bind
from cri.server.recovery import recover
from cri.server.service import Service
from cri.server.tidying import tidy
from runtime.client import ZygoteLauncher
from runtime.linux.notify import notify

log = logging.getLogger("crid")

#: How long calls under way may take to end once we are told to stop.
GRACE_SECONDS = 10.0

MAX_MESSAGE = 64 << 20

_OPTIONS = [
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.so_reuseport", 0),
]


async def serve(config: Config, zygote: ZygoteLauncher) -> None:
    """Run the daemon until a signal stops it. Raises starting.START_ERRORS for what it cannot start without."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with assemble(config, zygote) as daemon:
        await recover(daemon)
        await daemon.nri.open()
        server = grpc.aio.server(options=_OPTIONS)
        service = Service(daemon, ANSWERS)
        service.add_to(server)
        _enable_reflection(server)
        bind(server, config.listen)
        await server.start()
        notify("READY=1")
        log.info("crid serves CRI v1 on %s", config.listen)
        tidying = asyncio.create_task(tidy(daemon))
        await stop.wait()
        notify("STOPPING=1")
        await _stop(daemon, server, service)
        tidying.cancel()


def _enable_reflection(server: grpc.aio.Server) -> None:
    names = {method.service for method in methods().values()}
    reflection.enable_server_reflection([*sorted(names), reflection.SERVICE_NAME], server)


async def _stop(daemon: Daemon, server: grpc.aio.Server, service: Service) -> None:
    log.info("crid stops; pods go on")
    daemon.stopping.set()
    daemon.events.close()
    await server.stop(GRACE_SECONDS)
    await daemon.sandboxes_under_way.settle(GRACE_SECONDS)
    await daemon.containers_under_way.settle(GRACE_SECONDS)
    await service.settle(GRACE_SECONDS)
    await daemon.janitor.close()
    if not len(daemon.store.sandboxes) and not daemon.store.unread:
        # Nobody needs the bridge and its rules now; the next pod makes them again.
        for line in await daemon.cni.teardown():
            log.warning("left of the pods' network: %s", line)
    with contextlib.suppress(FileNotFoundError):
        daemon.config.listen.unlink()
