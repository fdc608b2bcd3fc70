"""What a pod's volumes are, as values, before anything is done: claims resolved, attributes complete, wrong ones named.

v1.Pod + ClaimIndex --plan()--> EmptyDir | HostPath | CsiVolume, one per entry of spec.volumes
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nodeagent.pods.fields import HOST_PATH_TYPES
from nodeagent.volumes.claims import ClaimIndex
from nodeagent.volumes.document import FieldError, Fields
from nodeagent.volumes.errors import ClaimError, VolumeError, VolumesError
from nodeagent.volumes.layout import component
from nodeagent.volumes.storage import PersistentVolume

SUPPORTED = ("emptyDir", "hostPath", "csi", "persistentVolumeClaim")
#: Keys that tell a driver whose volume it is; nobody but the agent sets them.
POD_INFO = "csi.storage.k8s.io/"
EPHEMERAL = POD_INFO + "ephemeral"


@dataclass(frozen=True, slots=True)
class Group:
    """The pod's fsGroup; `only_root_decides` is fsGroupChangePolicy OnRootMismatch."""

    gid: int
    only_root_decides: bool = False


@dataclass(frozen=True, slots=True)
class EmptyDir:
    """`size_limit` in bytes, 0 for none; one in memory cannot grow beyond, on disk the pod is evicted."""

    name: str
    in_memory: bool = False
    size_limit: int = 0
    group: Group | None = None


@dataclass(frozen=True, slots=True)
class HostPath:
    """`type` is v1.HostPathType, empty for no check."""

    name: str
    path: str
    type: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class CsiVolume:
    """`access_modes` are Kubernetes' names, empty for an inline volume; `claim` is namespace/name, or empty."""

    name: str
    driver: str
    handle: str
    read_only: bool = False
    fs_type: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    access_modes: tuple[str, ...] = ()
    mount_flags: tuple[str, ...] = ()
    group: Group | None = None
    claim: str = ""

    @property
    def inline(self) -> bool:
        return not self.access_modes

    @property
    def exclusive(self) -> bool:
        """For one pod at a time."""
        return self.access_modes == ("ReadWriteOncePod",)


Planned = EmptyDir | HostPath | CsiVolume


def plan(pod: Mapping[str, Any], claims: ClaimIndex) -> list[Planned]:
    """Raises VolumesError with every volume that cannot be had, and why."""
    planner = _Planner(pod, claims)
    planned: list[Planned] = []
    errors: list[VolumeError] = []
    for index, volume in enumerate(pod["spec"].get("volumes") or []):
        name = str(volume.get("name"))
        try:
            component(name)
            planned.append(planner.one(name, Fields(volume, f"spec.volumes[{index}]")))
        except FieldError as error:
            errors.append(VolumeError(name, str(error)))
        except (ClaimError, ValueError) as error:
            errors.append(VolumeError(name, str(error), field=f"spec.volumes[{index}]"))
    if errors:
        raise VolumesError(errors)
    return planned


class _Planner:
    def __init__(self, pod: Mapping[str, Any], claims: ClaimIndex) -> None:
        self._metadata = Fields(pod["metadata"], "metadata")
        self._spec = Fields(pod["spec"], "spec")
        self._claims = claims
        security = pod["spec"].get("securityContext") or {}
        gid, policy = security.get("fsGroup"), security.get("fsGroupChangePolicy")
        self._group = None if gid is None else Group(int(gid), policy == "OnRootMismatch")

    def one(self, name: str, volume: Fields) -> Planned:
        kinds = [kind for kind in volume.present() if kind != "name"]
        if len(kinds) != 1:
            raise FieldError(f"{volume.path}: has to have one source, not {', '.join(kinds) or 'none'}")
        source = volume.object(kinds[0])
        match kinds[0]:
            case "emptyDir":
                return self._empty_dir(name, source)
            case "hostPath":
                return _host_path(name, source)
            case "csi":
                return self._inline(name, source)
            case "persistentVolumeClaim":
                return self._claimed(name, source)
            case other:
                words = "this kind of volume is not supported by this agent; supported are"
                raise FieldError(f"{volume.at(other)}: {words} {', '.join(SUPPORTED)}")

    def _empty_dir(self, name: str, source: Fields) -> EmptyDir:
        medium = source.text("medium")
        if medium not in ("", "Memory"):
            raise FieldError(
                f"{source.at('medium')}: {medium!r} is not supported by this agent; use Memory or leave it"
            )
        return EmptyDir(name, medium == "Memory", source.bytes("sizeLimit"), self._group)

    def _inline(self, name: str, source: Fields) -> CsiVolume:
        _refuse_secrets(source)
        owner = f"{self._metadata.needed('uid')}/{name}"
        return CsiVolume(
            name,
            driver=component(source.needed("driver")),
            handle=f"csi-{hashlib.sha256(owner.encode()).hexdigest()}",
            read_only=source.flag("readOnly"),
            fs_type=source.text("fsType"),
            context=source.map("volumeAttributes") | self._pod_info(),
            group=self._group,
        )

    def _pod_info(self) -> dict[str, str]:
        """What a driver may want to know of the pod (KEP-596, podInfoOnMount)."""
        return {
            f"{POD_INFO}pod.name": self._metadata.needed("name"),
            f"{POD_INFO}pod.namespace": self._metadata.text("namespace") or "default",
            f"{POD_INFO}pod.uid": self._metadata.needed("uid"),
            f"{POD_INFO}serviceAccount.name": self._spec.text("serviceAccountName"),
            EPHEMERAL: "true",
        }

    def _claimed(self, name: str, source: Fields) -> Planned:
        namespace = self._metadata.text("namespace") or "default"
        claim = source.needed("claimName")
        volume = self._claims.resolve(namespace, claim)
        read_only = source.flag("readOnly")
        try:
            if volume.source_kind == "hostPath":
                if volume.mount_options:
                    raise FieldError("spec.mountOptions: a hostPath volume takes none")
                return _host_path(name, volume.source, read_only=read_only)
            return self._persistent(name, volume, f"{namespace}/{claim}", read_only)
        except FieldError as error:
            raise ClaimError(f"{namespace}/{claim}", f"PersistentVolume {volume.name}: {error}") from error

    def _persistent(self, name: str, volume: PersistentVolume, claim: str, read_only: bool) -> CsiVolume:
        source = volume.source
        _refuse_secrets(source)
        context = source.map("volumeAttributes")
        if EPHEMERAL in context:
            # A driver would remove the data with the pod.
            raise FieldError(f"{source.at('volumeAttributes')}: {EPHEMERAL} is for inline volumes; take it out")
        return CsiVolume(
            name,
            driver=component(source.needed("driver")),
            handle=source.needed("volumeHandle"),
            read_only=read_only or source.flag("readOnly") or volume.access_modes == ("ReadOnlyMany",),
            fs_type=source.text("fsType"),
            context=context,
            access_modes=volume.access_modes,
            mount_flags=volume.mount_options,
            group=self._group,
            claim=claim,
        )


def _host_path(name: str, source: Fields, *, read_only: bool = False) -> HostPath:
    path, kind = source.needed("path"), source.text("type")
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise FieldError(f"{source.at('path')}: {path!r} has to be an absolute path without ..")
    if kind not in HOST_PATH_TYPES:
        raise FieldError(f"{source.at('type')}: {kind!r} is none of {', '.join(filter(None, HOST_PATH_TYPES))}")
    return HostPath(name, path, kind, read_only)


def _refuse_secrets(source: Fields) -> None:
    for key in ("nodePublishSecretRef", "nodeStageSecretRef"):
        if key in source:
            words = "secrets come from an API server, which this agent does not talk to"
            raise FieldError(f"{source.at(key)}: {words}; use a driver that needs none")
