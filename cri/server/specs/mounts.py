"""Mounts of a container in the OCI spec's words: what every container has, and what the request asks for.

Sources are resolved here, when the container is created: a link is followed, a missing source is refused by name. The
mounting itself is done later by the shim, on fds, inside the container's own mount namespace; a link that has come into
a resolved source by then is refused (CVE-2021-25741).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest, NotFound, WrongState
from cri.server.image_files import merged_paths
from cri.server.security.user_namespaces import Maps, check_mount, oci_mappings
from cri.server.specs.etc_files import MOUNTED
from runtime.linux.mounttable import mount_of

OciMount = dict[str, Any]

_PROPAGATION = {
    api.PROPAGATION_PRIVATE: "rprivate",
    api.PROPAGATION_HOST_TO_CONTAINER: "rslave",
    api.PROPAGATION_BIDIRECTIONAL: "rshared",
}
#: Peer groups of which a source must have one (mount_namespaces(7)); a private mount tells nobody.
_PEERS = {api.PROPAGATION_HOST_TO_CONTAINER: ("shared", "master"), api.PROPAGATION_BIDIRECTIONAL: ("shared",)}
_MOUNT_OPTIONS = frozenset({"noexec", "nodev", "nosuid"})  # KEP-5855 names these and no others


def base_mounts(
    *, privileged: bool, shm: str, cgroup_writable: bool = False, sys_writable: bool = True
) -> list[OciMount]:
    """What every container has; `shm` is the directory of the pod's (or the host's) /dev/shm."""
    access = "rw" if privileged else "ro"
    kernel = ["nosuid", "noexec", "nodev"]
    return [
        _mount("/proc", "proc", "proc", kernel),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        _mount("/dev/mqueue", "mqueue", "mqueue", kernel),
        _mount("/dev/shm", "bind", shm, ["rbind", *kernel, "rw"]),
        _mount("/sys", "sysfs", "sysfs", [*kernel, access if sys_writable else "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*kernel, "relatime", "rw" if cgroup_writable else access]),
    ]


def etc_mounts(directory: Path, readonly: bool) -> list[OciMount]:
    """The files of etc_files.py; with a read-only root they are read-only too."""
    access = "ro" if readonly else "rw"
    return [
        _mount(path, "bind", str(directory / posixpath.basename(path)), ["rbind", "rprivate", access])
        for path in MOUNTED
    ]


def merge_mounts(base: Iterable[OciMount], volumes: Sequence[OciMount]) -> list[OciMount]:
    """One list in the order of mounting: a volume replaces a base mount of the same place, parents come first."""
    taken = {volume["destination"] for volume in volumes}
    kept = [mount for mount in base if mount["destination"] not in taken]
    return in_order([*kept, *volumes])


def in_order(mounts: Iterable[OciMount]) -> list[OciMount]:
    """As runtimes mount in the order of the list: parents before what is below them, those of equal depth as given."""
    return sorted(mounts, key=lambda mount: mount["destination"].rstrip("/").count("/"))


def host_volume(mount: api.Mount, maps: Maps | None = None) -> OciMount:
    """A bind mount of a host path; `maps` is that of the pod's user namespace.

    Blocks on the host's filesystems, a network volume that hangs included.

    Raises InvalidRequest for contradictions, NotFound for a source that does not exist.
    """
    destination = container_path(mount)
    idmapped = check_mount(mount, maps)
    if mount.image_sub_path:
        raise InvalidRequest(f"mount {destination}: image_sub_path is set without an image")
    if not mount.host_path.startswith("/") or "\0" in mount.host_path:
        raise InvalidRequest(f"mount {destination}: host_path {mount.host_path[:200]!r} is not an absolute path")
    try:
        source = os.path.realpath(mount.host_path, strict=True)
    except FileNotFoundError:
        raise NotFound(f"mount {destination}: host path {mount.host_path!r} does not exist; create it first") from None
    options = ["rbind", _propagation(mount), _access(mount, destination), *_extra_options(mount, destination)]
    _check_peers(mount, destination, source)
    mappings = oci_mappings(maps) if idmapped else {}
    return _mount(destination, "bind", source, options) | {"resolved": True} | mappings


def image_volume(mount: api.Mount, layers: Sequence[str], maps: Maps | None = None, spare: str = "") -> OciMount:
    """An image, or a sub path of it, mounted read-only (KEP-4639); `layers` top first. Blocks.

    In a pod with a user namespace it is id-mapped in any case, as the container's own image is. `spare` is an empty
    directory, where a mount has to be an overlay to have an SELinux label of its own, and overlays want two layers.
    """
    destination = container_path(mount)
    check_mount(mount, maps)
    try:
        places = merged_paths(layers, mount.image_sub_path)
    except OSError as error:
        why = error.strerror or error
        raise NotFound(
            f"mount {destination}: image_sub_path {mount.image_sub_path!r} of {mount.image.image}: {why}"
        ) from error
    extra = _extra_options(mount, destination)
    if spare and os.path.isdir(places[0]):
        places.append(spare)
    if len(places) == 1:
        return _mount(destination, "bind", places[0], ["bind", "rprivate", "ro", *extra]) | oci_mappings(maps)
    return _mount(destination, "overlay", "overlay", ["ro", *extra, *(f"lowerdir+={place}" for place in places)])


def container_path(mount: api.Mount) -> str:
    """The destination, normal and absolute."""
    if not mount.container_path:
        raise InvalidRequest(f"a mount of {mount.host_path or mount.image.image!r} has no container_path")
    path = posixpath.normpath("/" + mount.container_path)
    if path in ("/", "//"):
        raise InvalidRequest("a mount has the container_path '/'; the root filesystem comes from the image")
    if "\0" in path:
        raise InvalidRequest(f"the container_path {path[:200]!r} of a mount holds a NUL")
    return path.replace("//", "/")


def _propagation(mount: api.Mount) -> str:
    if mount.propagation not in _PROPAGATION:
        raise InvalidRequest(f"mount {mount.container_path}: unknown propagation {mount.propagation}")
    return _PROPAGATION[mount.propagation]


def _check_peers(mount: api.Mount, destination: str, source: str) -> None:
    """Raises WrongState where nothing could propagate: the container would wait for mounts that never come."""
    needed = _PEERS.get(mount.propagation)
    if needed is None:
        return
    around = mount_of(source)
    if not any(peer.startswith(needed) for peer in around.propagation):
        asked = api.MountPropagation.Name(mount.propagation)
        raise WrongState(
            f"mount {destination}: propagation is {asked}, but {source} is on the mount {around.point}, "
            f"which is not {' or '.join(needed)}; run `mount --make-rshared {around.point}` first"
        )


def _access(mount: api.Mount, destination: str) -> str:
    if not mount.recursive_read_only:
        return "ro" if mount.readonly else "rw"
    if not mount.readonly or mount.propagation != api.PROPAGATION_PRIVATE:
        raise InvalidRequest(
            f"mount {destination}: recursive_read_only needs readonly and PROPAGATION_PRIVATE (KEP-3857)"
        )
    return "rro"


def _extra_options(mount: api.Mount, destination: str) -> list[str]:
    if strays := set(mount.mount_options) - _MOUNT_OPTIONS:
        allowed = ", ".join(sorted(_MOUNT_OPTIONS))
        raise InvalidRequest(f"mount {destination}: mount_options {sorted(strays)} are not of {allowed}")
    return list(mount.mount_options)


def _mount(destination: str, kind: str, source: str, options: list[str]) -> OciMount:
    return {"destination": destination, "type": kind, "source": source, "options": options}
