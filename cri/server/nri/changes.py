"""What plugins want changed of containers that exist: limits, carried out at once, and containers to be ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Any

from cri.proto import nri_pb2 as nri
from cri.server.errors import CriFault, words_of
from cri.server.limits import change_limits
from cri.server.nri.adjusting_limits import check_classes, check_limits
from cri.server.nri.errors import NriFault
from cri.server.nri.plugin import Plugin
from cri.server.nri.refusal import Refusal
from cri.server.nri.resources import to_oci
from cri.server.pods import Container
from cri.server.store import Store
from runtime.client import ContainerError
from runtime.linux.cgroups import CgroupError
from runtime.linux.database import DatabaseError

log = logging.getLogger("crid")

#: How long an update waits for a container that somebody else is just changing, who may himself wait for the plugin.
UPDATE_SECONDS = 1.0


class Changes:
    """Carries them out."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def asked_for(self, plugin: Plugin, request: nri.UpdateContainersRequest) -> nri.UpdateContainersResponse:
        """A plugin's own wish, at any time; what could not be done is returned to it."""
        failed = await self.update(request.update)
        await self.evict(request.evict, plugin)
        return nri.UpdateContainersResponse(failed=failed)

    async def update(self, updates: Iterable[nri.ContainerUpdate]) -> list[nri.ContainerUpdate]:
        """Those that failed, and were not allowed to. One for a container that has ended is done with it."""
        failed = []
        for update in updates:
            container = self._living(update.container_id)
            if container is None:
                continue
            try:
                await self._change(container, update.linux.resources)
            except (CriFault, ContainerError, CgroupError, DatabaseError, OSError) as error:
                log.warning("an NRI plugin's update of container %s failed: %s", container.name, words_of(error))
                if not update.ignore_failure:
                    failed.append(update)
        return failed

    async def _change(self, container: Container, resources: nri.LinuxResources) -> None:
        async with contextlib.AsyncExitStack() as held:
            # The wait is cut off, never the change: the kernel, the runtime and the records are to say the same.
            async with asyncio.timeout(UPDATE_SECONDS):
                await held.enter_async_context(self._store.containers.held(container))
            await change_limits(self._store, container, self.limits(container, resources))

    def limits(self, container: Container, resources: nri.LinuxResources) -> dict[str, Any]:
        """In the OCI document's words. Raises NriFault for what cannot be enforced here."""
        change = to_oci(resources)
        try:
            check_classes(resources)
            check_limits(change, container)
        except Refusal as error:
            field = nri.Field.Name(nri.Field.ValueType(error.field))
            raise NriFault(f"NRI's update of {field} of container {container.name} cannot be made: {error}") from error
        change.pop("devices", None)  # rules are for containers that are being created
        return change

    async def evict(self, evictions: Iterable[nri.ContainerEviction], plugin: Plugin) -> None:
        """End containers; what is told of them is an exit like any other."""
        for eviction in evictions:
            container = self._living(eviction.container_id)
            if container is None or not container.running or container.sandbox.pod is None:
                continue
            log.warning("NRI plugin %s ends container %s: %s", plugin.name, container.name, eviction.reason[:200])
            try:
                await container.sandbox.pod.kill(container.id)
            except (ContainerError, OSError) as error:
                log.error("container %s cannot be ended: %s", container.name, words_of(error))

    def _living(self, id: str) -> Container | None:
        container = self._store.containers.find(id) if id else None
        return container if container is not None and not container.finished_at else None
