"""The Controller service: volumes made, listed and deleted. No snapshots, no attaching: there is nothing to attach."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message

from csi.hostpath.refusal import Locks, Refusal, invalid, not_found
from csi.hostpath.store import ID_LIMIT, Store, Stored, id_of
from csi.proto import csi_pb2

TOKEN = "after:"


class Controller:
    """Answers to the calls of a provisioner."""

    def __init__(self, store: Store, locks: Locks, topology: csi_pb2.Topology) -> None:
        self._store = store
        self._locks = locks
        self._topology = topology

    def answers(self) -> Mapping[str, Callable[[Any], Message]]:
        return {
            "CreateVolume": self.create_volume,
            "DeleteVolume": self.delete_volume,
            "ValidateVolumeCapabilities": self.validate_volume_capabilities,
            "ListVolumes": self.list_volumes,
            "GetCapacity": self.get_capacity,
            "ControllerGetCapabilities": self.controller_get_capabilities,
        }

    def create_volume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        if not request.name or len(request.name.encode()) > ID_LIMIT:
            raise invalid(f"name: {len(request.name.encode())} bytes, has to have 1 to {ID_LIMIT}")
        if why := unusable(request.volume_capabilities):
            raise invalid(f"volume_capabilities: {why}")
        if request.HasField("volume_content_source"):
            raise invalid("volume_content_source: this driver makes empty volumes only")
        self._check_topology(request.accessibility_requirements)
        volume_id = id_of(request.name)
        with self._locks.held(volume_id):
            volume = self._store.get(volume_id) or self._make(volume_id, request)
        if not _fits(volume.capacity, request.capacity_range):
            words = f"volume {request.name!r} exists with {volume.capacity} bytes, which is not in the wanted range"
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, words)
        return csi_pb2.CreateVolumeResponse(volume=self._described(volume))

    def _make(self, volume_id: str, request: csi_pb2.CreateVolumeRequest) -> Stored:
        wanted, limit = request.capacity_range.required_bytes, request.capacity_range.limit_bytes
        if wanted < 0 or limit < 0 or (limit and wanted > limit):
            raise invalid(f"capacity_range: {wanted} to {limit} bytes is no range")
        total = _total_bytes(self._store)
        if wanted > total:
            words = f"capacity_range: {wanted} bytes are wanted, the file system of {self._store.root} has {total}"
            raise Refusal(grpc.StatusCode.OUT_OF_RANGE, words)
        return self._store.create(volume_id, request.name, wanted)

    def _check_topology(self, requirement: csi_pb2.TopologyRequirement) -> None:
        here = dict(self._topology.segments)
        if requirement.requisite and all(dict(place.segments) != here for place in requirement.requisite):
            words = f"accessibility_requirements: volumes of this driver are on {here} only"
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, words)

    def _described(self, volume: Stored) -> csi_pb2.Volume:
        return csi_pb2.Volume(volume_id=volume.id, capacity_bytes=volume.capacity, accessible_topology=[self._topology])

    def delete_volume(self, request: csi_pb2.DeleteVolumeRequest) -> csi_pb2.DeleteVolumeResponse:
        volume_id = required(request, "volume_id")
        with self._locks.held(volume_id):
            volume = self._store.get(volume_id)
            if volume is not None:  # unknown: a success, by the spec
                self._store.delete(volume)
        return csi_pb2.DeleteVolumeResponse()

    def validate_volume_capabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        volume_id = required(request, "volume_id")
        if not request.volume_capabilities:
            raise invalid("volume_capabilities: missing")
        if self._store.get(volume_id) is None:
            raise not_found(f"volume {volume_id} does not exist")
        if why := unusable(request.volume_capabilities):
            return csi_pb2.ValidateVolumeCapabilitiesResponse(message=why)
        confirmed = csi_pb2.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
            mutable_parameters=request.mutable_parameters,
        )
        return csi_pb2.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)

    def list_volumes(self, request: csi_pb2.ListVolumesRequest) -> csi_pb2.ListVolumesResponse:
        """Pages in the order of ids, so that a token stays good when its volume, or any other, comes or goes."""
        if request.max_entries < 0:
            raise invalid(f"max_entries: {request.max_entries} is negative")
        token = request.starting_token
        if token and not token.startswith(TOKEN):
            raise Refusal(grpc.StatusCode.ABORTED, f"starting_token {token!r} is not from this driver: begin anew")
        last = token.removeprefix(TOKEN)
        found = [volume for volume in self._store.all() if not volume.ephemeral and volume.id > last]
        page = found[: request.max_entries or len(found)]
        more = TOKEN + page[-1].id if len(page) < len(found) else ""
        entries = [csi_pb2.ListVolumesResponse.Entry(volume=self._described(volume)) for volume in page]
        return csi_pb2.ListVolumesResponse(entries=entries, next_token=more)

    def get_capacity(self, request: csi_pb2.GetCapacityRequest) -> csi_pb2.GetCapacityResponse:
        if request.volume_capabilities and unusable(request.volume_capabilities):
            return csi_pb2.GetCapacityResponse(available_capacity=0)
        status = os.statvfs(self._store.root)
        return csi_pb2.GetCapacityResponse(available_capacity=status.f_bavail * status.f_frsize)

    def controller_get_capabilities(
        self, request: csi_pb2.ControllerGetCapabilitiesRequest
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        rpc = csi_pb2.ControllerServiceCapability.RPC
        kinds = (rpc.CREATE_DELETE_VOLUME, rpc.LIST_VOLUMES, rpc.GET_CAPACITY, rpc.SINGLE_NODE_MULTI_WRITER)
        return csi_pb2.ControllerGetCapabilitiesResponse(
            capabilities=[csi_pb2.ControllerServiceCapability(rpc=rpc(type=kind)) for kind in kinds]
        )


def required(request: Any, field: str) -> str:
    """A string field that has to be there; raises Refusal."""
    value: str = getattr(request, field)
    if not value:
        raise invalid(f"{field}: missing")
    return value


def unusable(capabilities: Iterable[csi_pb2.VolumeCapability]) -> str:
    """Why a directory cannot be used in one of these ways; empty when it can. No way at all is one reason more."""
    none = True
    for capability in capabilities:
        none = False
        if capability.WhichOneof("access_type") != "mount":
            return "a directory cannot be used as a block device: ask for access type mount"
        if capability.access_mode.mode == csi_pb2.VolumeCapability.AccessMode.UNKNOWN:
            return "access_mode: missing or unknown"
    return "missing" if none else ""


def _fits(capacity: int, wanted: csi_pb2.CapacityRange) -> bool:
    return capacity >= wanted.required_bytes and (not wanted.limit_bytes or capacity <= wanted.limit_bytes)


def _total_bytes(store: Store) -> int:
    status = os.statvfs(store.root)
    return status.f_blocks * status.f_frsize
