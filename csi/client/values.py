"""What goes into the calls and comes out of them, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from csi.proto import csi_pb2


class AccessMode(Enum):
    """How many may use a volume, and how; the interface's names (csi.proto, VolumeCapability.AccessMode)."""

    SINGLE_NODE_WRITER = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
    SINGLE_NODE_READER_ONLY = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_READER_ONLY
    MULTI_NODE_READER_ONLY = csi_pb2.VolumeCapability.AccessMode.MULTI_NODE_READER_ONLY
    MULTI_NODE_MULTI_WRITER = csi_pb2.VolumeCapability.AccessMode.MULTI_NODE_MULTI_WRITER
    SINGLE_NODE_SINGLE_WRITER = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_SINGLE_WRITER
    SINGLE_NODE_MULTI_WRITER = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume and the way it is used; `mount_group` (a gid) only for drivers with VOLUME_MOUNT_GROUP."""

    id: str
    access_mode: AccessMode
    fs_type: str = ""
    mount_flags: tuple[str, ...] = ()
    mount_group: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)

    def capability(self) -> csi_pb2.VolumeCapability:
        group = "" if self.mount_group is None else str(self.mount_group)
        return csi_pb2.VolumeCapability(
            mount=csi_pb2.VolumeCapability.MountVolume(
                fs_type=self.fs_type, mount_flags=self.mount_flags, volume_mount_group=group
            ),
            access_mode=csi_pb2.VolumeCapability.AccessMode(mode=self.access_mode.value),
        )


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """How a driver sees this node."""

    node_id: str
    topology: Mapping[str, str]
