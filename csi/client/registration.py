"""The agent's side of plugin registration (pluginregistration v1): ask a new socket who it is, tell it the outcome."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from csi.client.connection import PATIENCE, Connection
from csi.proto import pluginregistration_pb2 as registration_pb2
from csi.proto.services import Method, methods

TIMEOUT = 10.0


@functools.cache
def _methods() -> Mapping[str, Method]:
    return methods(registration_pb2.DESCRIPTOR.services_by_name["Registration"])


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What a plugin says of itself: nothing of it is checked yet. `endpoint` is a socket path, perhaps empty."""

    type: str
    name: str
    endpoint: str
    versions: tuple[str, ...]


class RegistrationClient:
    """One registration socket; every method raises CsiError."""

    def __init__(self, socket: Path, *, timeout: float = TIMEOUT, patience: float = PATIENCE) -> None:
        self._timeout = timeout
        self._connection = Connection(socket, f"plugin at {socket}", patience=patience)

    async def close(self) -> None:
        await self._connection.close()

    async def info(self) -> PluginInfo:
        answer = await self._connection.call(
            _methods()["GetInfo"], registration_pb2.InfoRequest(), timeout=self._timeout
        )
        return PluginInfo(answer.type, answer.name, answer.endpoint, tuple(answer.supported_versions))

    async def notify(self, error: str = "") -> None:
        """Tell the plugin that it is registered, or why it is not."""
        status = registration_pb2.RegistrationStatus(plugin_registered=not error, error=error)
        await self._connection.call(_methods()["NotifyRegistrationStatus"], status, timeout=self._timeout)
