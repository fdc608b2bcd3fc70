"""The calls that an agent makes to a CSI driver on its node: identity, and a volume's life on the node.

A volume's order of calls (CSI spec, "Volume Lifecycle"): stage, publish per pod, unpublish per pod, unstage. All of
them may be repeated at any time with the same outcome, which is what recovery after a crash stands on.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from csi.client.connection import PATIENCE, Connection
from csi.client.values import NodeInfo, Volume
from csi.proto import csi_pb2
from csi.proto.services import Method, methods

#: Seconds for a mount or its undoing, which may format a disk or wait for a server.
WORK_TIMEOUT = 120.0
#: Seconds for a question that the driver can answer from memory.
QUERY_TIMEOUT = 15.0


@functools.cache
def _methods() -> Mapping[str, Method]:
    services = csi_pb2.DESCRIPTOR.services_by_name
    return {**methods(services["Identity"]), **methods(services["Node"])}


class CsiDriver:
    """One driver behind one socket. Every method raises CsiError; timeouts are in seconds."""

    def __init__(
        self,
        socket: Path,
        name: str = "",
        *,
        work_timeout: float = WORK_TIMEOUT,
        query_timeout: float = QUERY_TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        self.name = name or str(socket)
        self.socket = socket
        self._work_timeout = work_timeout
        self._query_timeout = query_timeout
        self._connection = Connection(socket, f"CSI driver {self.name}", patience=patience)

    async def close(self) -> None:
        """Calls under way are cancelled."""
        await self._connection.close()

    async def identity(self) -> str:
        """The name that the driver gives itself."""
        answer = await self._query("GetPluginInfo", csi_pb2.GetPluginInfoRequest())
        return str(answer.name)

    async def node_info(self) -> NodeInfo:
        answer = await self._query("NodeGetInfo", csi_pb2.NodeGetInfoRequest())
        return NodeInfo(answer.node_id, dict(answer.accessible_topology.segments))

    async def node_capabilities(self) -> frozenset[str]:
        """Names of the driver's optional node features: STAGE_UNSTAGE_VOLUME, GET_VOLUME_STATS, ..."""
        answer = await self._query("NodeGetCapabilities", csi_pb2.NodeGetCapabilitiesRequest())
        kinds = csi_pb2.NodeServiceCapability.RPC.Type
        known = set(kinds.values())
        return frozenset(kinds.Name(c.rpc.type) for c in answer.capabilities if c.rpc.type in known)

    async def stage(self, volume: Volume, staging_path: Path) -> None:
        """Make the volume ready at a directory of the node's, which exists."""
        request = csi_pb2.NodeStageVolumeRequest(
            volume_id=volume.id,
            staging_target_path=str(staging_path),
            volume_capability=volume.capability(),
            volume_context=volume.context,
        )
        await self._work("NodeStageVolume", request)

    async def publish(self, volume: Volume, target: Path, *, staging_path: Path | None, read_only: bool) -> None:
        """Show the volume at `target`, which the driver makes; its parent exists."""
        request = csi_pb2.NodePublishVolumeRequest(
            volume_id=volume.id,
            staging_target_path=_text(staging_path),
            target_path=str(target),
            volume_capability=volume.capability(),
            readonly=read_only,
            volume_context=volume.context,
        )
        await self._work("NodePublishVolume", request)

    async def unpublish(self, volume_id: str, target: Path) -> None:
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(target))
        await self._work("NodeUnpublishVolume", request)

    async def unstage(self, volume_id: str, staging_path: Path) -> None:
        request = csi_pb2.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(staging_path))
        await self._work("NodeUnstageVolume", request)

    async def _query(self, name: str, request: Any) -> Any:
        volume = getattr(request, "volume_id", "")
        return await self._connection.call(_methods()[name], request, timeout=self._query_timeout, volume=volume)

    async def _work(self, name: str, request: Any) -> None:
        method = _methods()[name]
        await self._connection.call(method, request, timeout=self._work_timeout, volume=request.volume_id)


def _text(path: Path | None) -> str:
    return "" if path is None else str(path)
