"""The Node service: a volume's directory is bound to its staging path once, and from there to each pod's path.

Every call is judged by the mount table, so repeating one, or resuming after a kill -9, needs no memory. An inline
ephemeral volume is made by its first publish and removed, data and all, by its unpublish.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from csi.hostpath.binds import Place, bind, unbind
from csi.hostpath.controller import required, unusable
from csi.hostpath.refusal import Locks, Refusal, invalid, not_found
from csi.hostpath.store import Store, Stored
from csi.proto import csi_pb2
from runtime.linux.failpoints import failpoint
from runtime.linux.mounttable import mounts, mounts_at
from runtime.linux.trees import belongs_to_group, give_to_group

EPHEMERAL = "csi.storage.k8s.io/ephemeral"
#: Ways of use that are for one target path at a time, even on one node (CSI spec, NodePublishVolume, second table).
ONE_PLACE = frozenset(
    {
        csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER,
        csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_READER_ONLY,
        csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_SINGLE_WRITER,
    }
)
#: A PersistentVolume written by hand names a volume that nobody has created: with this attribute, its first use does.
CREATE = "createIfMissing"

FAILPOINTS = (
    "hostpath.stage.before_mount",
    "hostpath.stage.after_mount",
    "hostpath.publish.before_mount",
    "hostpath.publish.after_mount",
    "hostpath.unpublish.after_unmount",
    "hostpath.unpublish.after_rmdir",
    "hostpath.unstage.after_unmount",
)


class Node:
    """Answers to the agent of this node, which is `node_id` to the cluster."""

    def __init__(self, store: Store, locks: Locks, node_id: str, topology: csi_pb2.Topology) -> None:
        self._store = store
        self._locks = locks
        self._node_id = node_id
        self._topology = topology

    def answers(self) -> Mapping[str, Callable[[Any], Message]]:
        return {
            "NodeStageVolume": self.node_stage_volume,
            "NodeUnstageVolume": self.node_unstage_volume,
            "NodePublishVolume": self.node_publish_volume,
            "NodeUnpublishVolume": self.node_unpublish_volume,
            "NodeGetVolumeStats": self.node_get_volume_stats,
            "NodeExpandVolume": self.node_expand_volume,
            "NodeGetCapabilities": self.node_get_capabilities,
            "NodeGetInfo": self.node_get_info,
        }

    def node_stage_volume(self, request: csi_pb2.NodeStageVolumeRequest) -> csi_pb2.NodeStageVolumeResponse:
        volume_id = required(request, "volume_id")
        staging = _path(request, "staging_target_path")
        _check_capability(request)
        with self._locks.held(volume_id):
            volume = self._store.get(volume_id) or self._make_on_use(volume_id, request.volume_context)
            staging.mkdir(mode=0o750, exist_ok=True)
            self._show(volume, volume.data, staging, False, request.volume_capability, "stage")
        return csi_pb2.NodeStageVolumeResponse()

    def node_unstage_volume(self, request: csi_pb2.NodeUnstageVolumeRequest) -> csi_pb2.NodeUnstageVolumeResponse:
        volume_id = required(request, "volume_id")
        staging = _path(request, "staging_target_path")
        with self._locks.held(volume_id):
            unbind(staging, self._store.place)
            failpoint("hostpath.unstage.after_unmount")
        return csi_pb2.NodeUnstageVolumeResponse()

    def node_publish_volume(self, request: csi_pb2.NodePublishVolumeRequest) -> csi_pb2.NodePublishVolumeResponse:
        volume_id = required(request, "volume_id")
        target = _path(request, "target_path")
        _check_capability(request)
        with self._locks.held(volume_id):
            volume = self._store.get(volume_id)
            if request.volume_context.get(EPHEMERAL) == "true":
                volume = volume or self._store.create(volume_id, volume_id, 0, ephemeral=True)
                source = volume.data
            else:
                source = self._staged(volume_id, volume, request)
            assert volume is not None
            if request.volume_capability.access_mode.mode in ONE_PLACE:
                _check_alone(volume, source, target)
            self._give_group(volume, request)
            with contextlib.suppress(FileExistsError):
                target.mkdir(mode=0o750)
            self._show(volume, source, target, request.readonly, request.volume_capability, "publish")
        return csi_pb2.NodePublishVolumeResponse()

    def _staged(self, volume_id: str, volume: Stored | None, request: csi_pb2.NodePublishVolumeRequest) -> Path:
        if volume is None:
            raise not_found(f"volume {volume_id} does not exist")
        if not request.staging_target_path:
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "staging_target_path: missing; stage the volume first")
        staging = _path(request, "staging_target_path")
        place = Place(volume.data)
        if not any(place.shown_by(mount) for mount in mounts_at(staging)):
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, f"volume {volume_id} is not staged at {staging}")
        return staging

    def _make_on_use(self, volume_id: str, context: Mapping[str, str]) -> Stored:
        if context.get(CREATE) != "true":
            words = f"volume {volume_id} does not exist: create it by CreateVolume, or give the volume the attribute"
            raise not_found(f'{words} {CREATE}: "true"')
        return self._store.create(volume_id, volume_id, 0)

    def _give_group(self, volume: Stored, request: csi_pb2.NodePublishVolumeRequest) -> None:
        group = request.volume_capability.mount.volume_mount_group
        if group and not group.isdecimal():
            raise invalid(f"volume_mount_group: {group!r} is no gid")
        if group and not belongs_to_group(volume.data, int(group)):
            give_to_group(volume.data, int(group))

    def _show(
        self,
        volume: Stored,
        source: Path,
        target: Path,
        read_only: bool,
        capability: csi_pb2.VolumeCapability,
        step: str,
    ) -> None:
        """Bind unless it is there already; raises Refusal when something else, or the other way of access, is."""
        found = mounts_at(target)
        if not found:
            failpoint(f"hostpath.{step}.before_mount")
            bind(source, target, read_only=read_only, flags=capability.mount.mount_flags)
            failpoint(f"hostpath.{step}.after_mount")
        elif not Place(volume.data).shown_by(found[-1]) or found[-1].read_only != (
            read_only or "ro" in capability.mount.mount_flags
        ):
            words = f"{target} shows {found[-1].source} {'read-only' if found[-1].read_only else 'read-write'} already"
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, f"{words}; unpublish that first")

    def node_unpublish_volume(self, request: csi_pb2.NodeUnpublishVolumeRequest) -> csi_pb2.NodeUnpublishVolumeResponse:
        volume_id = required(request, "volume_id")
        target = _path(request, "target_path")
        with self._locks.held(volume_id):
            unbind(target, self._store.place)
            failpoint("hostpath.unpublish.after_unmount")
            with contextlib.suppress(FileNotFoundError):
                target.rmdir()  # and never more than that: what is in it now is not of the volume
            failpoint("hostpath.unpublish.after_rmdir")
            volume = self._store.get(volume_id)
            if volume is not None and volume.ephemeral:
                self._store.delete(volume)
        return csi_pb2.NodeUnpublishVolumeResponse()

    def node_get_volume_stats(self, request: csi_pb2.NodeGetVolumeStatsRequest) -> csi_pb2.NodeGetVolumeStatsResponse:
        path = self._mounted(required(request, "volume_id"), required(request, "volume_path"))
        status = os.statvfs(path)
        usage = csi_pb2.VolumeUsage
        return csi_pb2.NodeGetVolumeStatsResponse(
            usage=[
                usage(
                    unit=usage.BYTES,
                    total=status.f_blocks * status.f_frsize,
                    available=status.f_bavail * status.f_frsize,
                    used=(status.f_blocks - status.f_bfree) * status.f_frsize,
                ),
                usage(
                    unit=usage.INODES,
                    total=status.f_files,
                    available=status.f_favail,
                    used=status.f_files - status.f_ffree,
                ),
            ]
        )

    def _mounted(self, volume_id: str, text: str) -> Path:
        volume = self._store.get(volume_id)
        if volume is None:
            raise not_found(f"volume {volume_id} does not exist")
        place, path = Place(volume.data), _as_mounted(text)
        if not any(place.shown_by(mount) for mount in mounts_at(path)):
            raise not_found(f"volume {volume_id} is not at {text}")
        return path

    def node_expand_volume(self, request: csi_pb2.NodeExpandVolumeRequest) -> csi_pb2.NodeExpandVolumeResponse:
        """A directory has no file system of its own to grow: the new size is remembered."""
        volume_id = required(request, "volume_id")
        self._mounted(volume_id, required(request, "volume_path"))
        with self._locks.held(volume_id):
            volume = self._store.get(volume_id)
            if volume is None:
                raise not_found(f"volume {volume_id} does not exist")
            capacity = max(volume.capacity, request.capacity_range.required_bytes)
            if request.capacity_range.limit_bytes and capacity > request.capacity_range.limit_bytes:
                words = f"volume {volume_id} would have {capacity} bytes, above the limit"
                raise Refusal(grpc.StatusCode.OUT_OF_RANGE, f"{words} of {request.capacity_range.limit_bytes}")
            self._store.resize(volume, capacity)
        return csi_pb2.NodeExpandVolumeResponse(capacity_bytes=capacity)

    def node_get_capabilities(self, request: csi_pb2.NodeGetCapabilitiesRequest) -> csi_pb2.NodeGetCapabilitiesResponse:
        rpc = csi_pb2.NodeServiceCapability.RPC
        kinds = (
            rpc.STAGE_UNSTAGE_VOLUME,
            rpc.GET_VOLUME_STATS,
            rpc.EXPAND_VOLUME,
            rpc.SINGLE_NODE_MULTI_WRITER,
            rpc.VOLUME_MOUNT_GROUP,
        )
        return csi_pb2.NodeGetCapabilitiesResponse(
            capabilities=[csi_pb2.NodeServiceCapability(rpc=rpc(type=kind)) for kind in kinds]
        )

    def node_get_info(self, request: csi_pb2.NodeGetInfoRequest) -> csi_pb2.NodeGetInfoResponse:
        return csi_pb2.NodeGetInfoResponse(node_id=self._node_id, accessible_topology=self._topology)


def _check_alone(volume: Stored, source: Path, target: Path) -> None:
    place = Place(volume.data)
    points = {mount.point for mount in mounts() if place.shown_by(mount)}
    others = sorted(points - {str(source)})
    if others and str(target) not in points:
        words = f"volume {volume.id} is published at {others[0]}, and its access mode allows for one place at a time"
        raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, f"{words}: unpublish that first")


def _path(request: Any, field: str) -> Path:
    text = required(request, field)
    if not text.startswith("/") or os.path.normpath(text) != text:
        raise invalid(f"{field}: {text!r} is no absolute path without . and .. in it")
    return _as_mounted(text)


def _as_mounted(text: str) -> Path:
    """The name that the mount table has for a path: the caller's directories may be reached through a link."""
    parent, name = os.path.split(text)
    return Path(os.path.realpath(parent), name)


def _check_capability(request: Any) -> None:
    if not request.HasField("volume_capability"):
        raise invalid("volume_capability: missing")
    if why := unusable([request.volume_capability]):
        raise invalid(f"volume_capability: {why}")
