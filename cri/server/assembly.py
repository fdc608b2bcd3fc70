"""Puts the parts of crid together and takes them apart again, in the right order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib import metadata

from cni.network import Cni
from cri.server.cdi.registry import Registry
from cri.server.checkpoint.criu import Criu
from cri.server.config import Config
from cri.server.daemon import Daemon
from cri.server.events import Events
from cri.server.exits import Exits
from cri.server.handlers import Handlers
from cri.server.nri.adjusting import Adjuster
from cri.server.nri.nri import Nri
from cri.server.pod_network import POD_CIDR, SETTING, pod_network
from cri.server.seccomp.compiled import Profiles
from cri.server.security.apparmor import AppArmor
from cri.server.security.selinux import Selinux
from cri.server.security.user_namespaces import UserNamespaces
from cri.server.sessions import PodSessions
from cri.server.store import Store
from cri.server.streaming import StreamingServer
from cri.server.usage.layers import LayerUsage
from images import ImageStore
from runtime.client import Runtime, ZygoteLauncher
from runtime.linux.ledger import Ledger
from runtime.linux.records import Records

OWNER = "crid"


@contextlib.asynccontextmanager
async def assemble(config: Config, zygote: ZygoteLauncher | None = None) -> AsyncIterator[Daemon]:
    """A Daemon whose parts run; they are closed in reverse order, and pods go on."""
    (config.state / "sandboxes").mkdir(mode=0o700, exist_ok=True)
    async with contextlib.AsyncExitStack() as parts:
        database = config.root / "ledger.db"
        ledger = Ledger(database, OWNER)
        parts.callback(ledger.close)
        records = Records(database)
        parts.callback(records.close)
        store, events = Store(records), Events()
        exits = Exits(store, events, ledger)
        runtime = Runtime(config.state, on_event=exits.on_event, zygote=zygote)
        exits.watch(runtime)
        parts.push_async_callback(runtime.close)
        images = ImageStore(config.root, ledger, records, registries=config.registries, pinned=config.pinned)
        parts.push_async_callback(images.close)
        selinux = Selinux()
        await asyncio.to_thread(selinux.share_layers, images.unpacked)
        settings = config.streaming
        streaming = StreamingServer(
            PodSessions(store), settings.address, settings.port, settings.tls(), settings.idle_timeout
        )
        await streaming.start()
        parts.push_async_callback(streaming.close)
        cni = _network(config, ledger, records)
        parts.push_async_callback(cni.close)
        profiles, cdi = Profiles(config.root / "seccomp"), Registry(config.cdi_spec_dirs)
        nri = Nri(config.nri, store, Adjuster(profiles, cdi), metadata.version("nodeagent"))
        exits.tell(nri)
        parts.push_async_callback(nri.close)
        yield Daemon(
            config=config,
            store=store,
            records=records,
            ledger=ledger,
            runtime=runtime,
            images=images,
            cni=cni,
            events=events,
            exits=exits,
            profiles=profiles,
            handlers=Handlers(config),
            cdi=cdi,
            userns=UserNamespaces(runtime, config.root),
            apparmor=AppArmor(),
            selinux=selinux,
            streaming=streaming,
            layers=LayerUsage(images),
            nri=nri,
            criu=Criu(config.checkpoint.criu),
        )


def _network(config: Config, ledger: Ledger, records: Records) -> Cni:
    network = config.network
    told = records.get(SETTING, POD_CIDR) or {}
    conflist = pod_network(network, told.get("cidr", network.subnet))
    return Cni(network.conf_dir, network.bin_dirs, network.cache_dir, ledger, default_conflist=conflist)
