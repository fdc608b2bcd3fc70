"""The steps of a pod's and a container's life as NRI's plugins see them; the calls of the interface come here.

    RunPodSandbox      run_pod      can be refused                     StopPodSandbox    stopped_pod    is told
    CreateContainer    create       adjusted, validated, refused       RemovePodSandbox  removed_pod    is told
    StartContainer     start        can be refused; started is told    an exit           exited         is told
    UpdateContainerResources        update: changed or refused; updated is told

What is only told cannot fail a request: what a plugin says against it is logged.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cri.proto import api_pb2 as cri
from cri.proto import nri_pb2 as nri
from cri.server.nri.adjusting import Adjuster
from cri.server.nri.changes import Changes
from cri.server.nri.config import NriConfig
from cri.server.nri.errors import NriFault
from cri.server.nri.merging import Adjustments, Updates
from cri.server.nri.messages import container_message, pod_message
from cri.server.nri.owners import Owners
from cri.server.nri.plugin import Plugin, Terms
from cri.server.nri.plugins import Plugins
from cri.server.nri.resources import copy_set_fields, from_cri
from cri.server.nri.validator import Validator
from cri.server.nri.view import View
from cri.server.pods import Container, Sandbox
from cri.server.specs.resources import oci_resources
from cri.server.store import Store

log = logging.getLogger("crid")


class Nri:
    """All steps; each returns at once while no plugin is connected."""

    def __init__(self, config: NriConfig, store: Store, adjuster: Adjuster, version: str) -> None:
        self._config = config
        self._adjuster = adjuster
        self._validator = Validator(config.default_validator) if config.default_validator.enable else None
        self._view = View(store)
        self._changes = Changes(store)
        self._exits: dict[str, asyncio.Task[None]] = {}
        terms = Terms("crid", version, config.plugin_registration_timeout, config.plugin_request_timeout)
        self.plugins = Plugins(config, terms, self._changes.asked_for, self._synchronize)
        self._connected = self.plugins.connected

    async def open(self) -> None:
        """Let plugins in. Raises OSError, ConfigError for a directory of plugins that cannot be used."""
        if not self._config.disable:
            await self.plugins.start()

    def status(self) -> dict[str, Any]:
        """For people: where plugins can connect, why not, and who has."""
        listens = not (self._config.disable or self._config.disable_connections or self.plugins.trouble)
        return {
            "socket": str(self._config.socket) if listens else "",
            "trouble": self.plugins.trouble,
            "plugins": [plugin.name for plugin in self._connected],
        }

    async def close(self) -> None:
        """Let all plugins go."""
        await self.plugins.close()

    # Pods.

    async def run_pod(self, sandbox: Sandbox) -> None:
        """The pod is made, but not READY yet. Raises NriFault."""
        self._view.add_pod(sandbox)
        if self._connected:
            await self._ask(nri.RUN_POD_SANDBOX, nri.RunPodSandboxRequest(pod=pod_message(sandbox)))

    async def undo_pod(self, sandbox: Sandbox) -> None:
        """It could not be made after all."""
        if self._view.knows_pod(sandbox.id):
            await self.stopped_pod(sandbox)
            await self.removed_pod(sandbox)
            self.forget(sandbox.id)

    async def stopped_pod(self, sandbox: Sandbox) -> None:
        if self._connected:
            await self._tell(nri.STOP_POD_SANDBOX, nri.StopPodSandboxRequest(pod=pod_message(sandbox)))

    async def removed_pod(self, sandbox: Sandbox) -> None:
        """It is gone; forget() follows when it has left the store."""
        if self._view.drop(sandbox.id) and self._connected:
            await self._tell(nri.REMOVE_POD_SANDBOX, nri.RemovePodSandboxRequest(pod=pod_message(sandbox)))

    def forget(self, id: str) -> None:
        """A pod or a container has left the store."""
        self._view.forget(id)
        self._exits.pop(id, None)

    async def update_pod(self, sandbox: Sandbox, request: cri.UpdatePodSandboxResourcesRequest) -> None:
        """Raises NriFault."""
        if self._connected:
            message = nri.UpdatePodSandboxRequest(
                pod=pod_message(sandbox),
                overhead_linux_resources=from_cri(request.overhead),
                linux_resources=from_cri(request.resources),
            )
            await self._ask(nri.UPDATE_POD_SANDBOX, message)

    async def updated_pod(self, sandbox: Sandbox) -> None:
        if self._connected:
            await self._tell(nri.POST_UPDATE_POD_SANDBOX, nri.PostUpdatePodSandboxRequest(pod=pod_message(sandbox)))

    # Containers.

    async def create(self, container: Container) -> None:
        """Adjust a container that nobody knows yet. Raises NriFault."""
        self._view.add_container(container)
        if self._connected or self._validator is not None:
            await self._adjust(container)

    async def _adjust(self, container: Container) -> None:
        request = _about(nri.CreateContainerRequest, container)
        validated = nri.ValidateContainerAdjustmentRequest(pod=request.pod, container=request.container)
        result = Adjustments(request)
        for plugin in list(self._connected):
            validated.plugins.add(name=plugin.base, index=plugin.index)
            if (response := await plugin.relay(nri.CREATE_CONTAINER, request)) is not None:
                result.add(response, plugin.name)
                await self._changes.evict(response.evict, plugin)
        validated.adjust.CopyFrom(result.adjust)
        validated.update.extend(result.updates.of.values())
        await self._validate(validated, result.owners)
        await self._adjuster.apply(container, result.adjust, result.owners)
        await self._changes.update(result.updates.of.values())

    async def _validate(self, request: nri.ValidateContainerAdjustmentRequest, owners: Owners) -> None:
        if self._validator is not None:
            self._validator.check(request, owners)
        validators = [each for each in self._connected if each.wants(nri.VALIDATE_CONTAINER_ADJUSTMENT)]
        if validators:
            request.owners.CopyFrom(owners.message())
            await asyncio.gather(*(validator.validate(request) for validator in validators))

    async def undo_create(self, container: Container) -> None:
        """It could not be created after all."""
        await self.removed(container)
        self.forget(container.id)

    async def created(self, container: Container) -> None:
        if self._connected:
            await self._tell(nri.POST_CREATE_CONTAINER, _about(nri.PostCreateContainerRequest, container))

    async def start(self, container: Container) -> None:
        """Raises NriFault."""
        if self._connected:
            await self._ask(nri.START_CONTAINER, _about(nri.StartContainerRequest, container))

    async def started(self, container: Container) -> None:
        if self._connected:
            await self._tell(nri.POST_START_CONTAINER, _about(nri.PostStartContainerRequest, container))

    async def update(self, container: Container, asked: cri.LinuxContainerResources) -> dict[str, Any]:
        """The change of limits that is to be made, in the OCI document's words. Raises NriFault."""
        if not self._connected:
            return oci_resources(asked)
        request = _about(nri.UpdateContainerRequest, container)
        request.linux_resources.CopyFrom(from_cri(asked))
        updates = Updates(Owners())
        for plugin in list(self._connected):
            if (response := await plugin.relay(nri.UPDATE_CONTAINER, request)) is not None:
                updates.add(response.update, plugin.name)
                if (own := updates.of.get(container.id)) is not None:
                    copy_set_fields(own.linux.resources, request.linux_resources, lambda field, key: None)
                await self._changes.evict(response.evict, plugin)
        updates.of.pop(container.id, None)
        await self._changes.update(updates.of.values())
        return self._changes.limits(container, request.linux_resources)

    async def updated(self, container: Container) -> None:
        if self._connected:
            await self._tell(nri.POST_UPDATE_CONTAINER, _about(nri.PostUpdateContainerRequest, container))

    def exited(self, container: Container) -> None:
        """A container has ended, whoever wanted that; nobody waits here for what the plugins say."""
        if self._connected and container.id not in self._exits:
            self._exits[container.id] = asyncio.create_task(self._stopped(container))

    async def settled(self, container: Container) -> None:
        """Wait until the plugins know that it has ended."""
        if (task := self._exits.get(container.id)) is not None:
            await asyncio.shield(task)

    async def _stopped(self, container: Container) -> None:
        request, updates = _about(nri.StopContainerRequest, container), Updates(Owners())
        for plugin in list(self._connected):
            try:
                if (response := await plugin.relay(nri.STOP_CONTAINER, request)) is not None:
                    updates.add(response.update, plugin.name)
            except NriFault as error:
                log.warning("%s; the container has ended all the same", error)
        await self._changes.update(updates.of.values())

    async def removed(self, container: Container) -> None:
        """It is gone; forget() follows when it has left the store."""
        if not self._view.drop(container.id) or not self._connected:
            return
        if not container.finished_at:
            self.exited(container)  # it never ran, but plugins free here what they keep for it
        await self.settled(container)
        await self._tell(nri.REMOVE_CONTAINER, _about(nri.RemoveContainerRequest, container))

    # How plugins are asked and told.

    async def _synchronize(self, plugin: Plugin) -> None:
        """Tell a new plugin what there is; see plugins.py for the moment that counts. Raises PluginLost."""
        pods = [pod_message(sandbox) for sandbox in self._view.pods()]
        containers = [container_message(container) for container in self._view.containers()]
        await self._changes.update(await plugin.synchronize(pods, containers))

    async def _ask(self, event: int, request: Any) -> None:
        for plugin in list(self._connected):
            await plugin.relay(event, request)

    async def _tell(self, event: int, request: Any) -> None:
        for plugin in list(self._connected):
            try:
                await plugin.relay(event, request)
            except NriFault as error:
                log.warning("%s; it was only told", error)


def _about(kind: Any, container: Container) -> Any:
    return kind(pod=pod_message(container.sandbox), container=container_message(container))
