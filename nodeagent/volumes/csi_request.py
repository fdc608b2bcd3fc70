"""How a volume of a pod is put to its driver: Kubernetes' words in CSI's, as far as the driver understands them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from csi.client import AccessMode, Volume
from nodeagent.volumes.deadline import within
from nodeagent.volumes.drivers import Registered
from nodeagent.volumes.plan import CsiVolume
from runtime.linux.trees import belongs_to_group, give_to_group

#: Seconds for a recursive change of group, where neither the driver nor the mount can do it.
GROUP_CHANGE = 600.0

_PLAIN_MODES = {
    "ReadWriteOnce": AccessMode.SINGLE_NODE_WRITER,
    "ReadOnlyMany": AccessMode.MULTI_NODE_READER_ONLY,
    "ReadWriteMany": AccessMode.MULTI_NODE_MULTI_WRITER,
    "ReadWriteOncePod": AccessMode.SINGLE_NODE_WRITER,
}
#: With the capability SINGLE_NODE_MULTI_WRITER (KEP-2485).
_FINE_MODES = _PLAIN_MODES | {
    "ReadWriteOnce": AccessMode.SINGLE_NODE_MULTI_WRITER,
    "ReadWriteOncePod": AccessMode.SINGLE_NODE_SINGLE_WRITER,
}


def asked(volume: CsiVolume, registered: Registered) -> Volume:
    """The volume and its use. Access modes are per node here, so that of the PersistentVolume's first one counts."""
    modes = _FINE_MODES if registered.can("SINGLE_NODE_MULTI_WRITER") else _PLAIN_MODES
    mode = AccessMode.SINGLE_NODE_WRITER if volume.inline else modes[volume.access_modes[0]]
    group = volume.group.gid if volume.group is not None and registered.can("VOLUME_MOUNT_GROUP") else None
    return Volume(volume.handle, mode, volume.fs_type, volume.mount_flags, group, volume.context)


def vol_data(volume: CsiVolume, registered: Registered) -> Mapping[str, str]:
    """What the kubelet keeps beside a volume, under its names: other agents and tools find the volume by it."""
    return {
        "driverName": volume.driver,
        "nodeName": registered.node.node_id,
        "specVolID": volume.name,
        "volumeHandle": volume.handle,
        "volumeLifecycleMode": "Ephemeral" if volume.inline else "Persistent",
    }


async def give_group(volume: CsiVolume, asked: Volume, target: Path) -> None:
    """Apply the pod's fsGroup to a published volume, where its driver was not asked to. Raises OSError, TimeoutError.

    The default fsGroupPolicy, ReadWriteOnceWithFSType, says when an agent may change owners in a volume.
    """
    once = volume.inline or volume.access_modes[0] in ("ReadWriteOnce", "ReadWriteOncePod")
    if volume.group is None or asked.mount_group is not None:
        return
    if once and volume.fs_type and not volume.read_only:
        await within(GROUP_CHANGE, _give, target, volume.group.gid, volume.group.only_root_decides)


def _give(target: Path, gid: int, only_root_decides: bool) -> None:
    if not (only_root_decides and belongs_to_group(target, gid)):
        give_to_group(target, gid)
