"""User namespaces of pods (KEP-127): what a request may ask for, and whether this host can do it.

A pod has one mapping, the same for users and groups, which all its containers and volumes share. What the kernel
cannot do with it is refused here, by the name of the field, before anything is made.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest, WrongState
from cri.server.security.users import Identity
from runtime.client import Runtime, explain
from runtime.linux.fds import Fd
from runtime.linux.mounts import bind, idmap

FIELD = "namespace_options.userns_options"
ID_MAX = (1 << 32) - 2
RETRY_SECONDS = 60.0
Maps = dict[str, list[list[int]]]


def pod_maps(options: api.NamespaceOption) -> Maps | None:
    """The pod's mapping as SandboxSpec has it, None without a user namespace. Raises InvalidRequest.

    hostPID and hostIPC are refused as Kubernetes refuses them: processes and memory of the node would all be nobody's.
    """
    if not options.HasField("userns_options"):
        return None
    asked = options.userns_options
    if asked.mode == api.NODE:
        if asked.uids or asked.gids:
            raise InvalidRequest(f"{FIELD}: mode NODE takes no uids and no gids; ask for mode POD to map ids")
        return None
    if asked.mode != api.POD:
        raise InvalidRequest(f"{FIELD}.mode {mode_name(asked.mode)} is neither POD nor NODE")
    maps = {"uid": [_line(asked.uids, "uids")], "gid": [_line(asked.gids, "gids")]}
    if maps["uid"] != maps["gid"]:
        raise InvalidRequest(f"{FIELD}: uids and gids map differently; they have to be alike")
    for kind in ("pid", "ipc"):
        if getattr(options, kind) == api.NODE:
            raise InvalidRequest(f"namespace_options.{kind} is NODE, which a pod with a user namespace cannot have")
    return maps


def mode_name(mode: int) -> str:
    """For messages: the enum is open, so a request can hold any number."""
    return api.NamespaceMode.Name(mode) if mode in api.NamespaceMode.values() else str(mode)


def _line(mappings: Sequence[api.IDMapping], field: str) -> list[int]:
    if len(mappings) != 1:
        raise InvalidRequest(f"{FIELD}.{field} has {len(mappings)} mappings; exactly one is supported")
    line = mappings[0]
    if line.container_id != 0:
        raise InvalidRequest(f"{FIELD}.{field}: container_id is {line.container_id}; the container's root, 0, has none")
    if line.length < 1 or line.host_id + line.length - 1 > ID_MAX:
        last = f"{line.host_id} with length {line.length}"
        raise InvalidRequest(f"{FIELD}.{field}: host_id {last} is no range of ids up to {ID_MAX}")
    return _numbers(line)


def _numbers(line: api.IDMapping) -> list[int]:
    return [line.container_id, line.host_id, line.length]


def check_container(pod: api.NamespaceOption, asked: api.NamespaceOption) -> None:
    """A container lives in its pod's user namespace; one that names another is refused. Raises InvalidRequest."""
    if asked.HasField("userns_options") and pod_maps(asked) != pod_maps(pod):
        raise InvalidRequest(f"{FIELD} of the container is not that of its pod; leave it out, or repeat the pod's")


def check_identity(identity: Identity, maps: Maps | None) -> None:
    """Every id that a process starts with has to exist inside. Raises InvalidRequest."""
    if maps is None:
        return
    length = maps["uid"][0][2]
    for what, number in [("user", identity.uid), *(("group", group) for group in (identity.gid, *identity.groups))]:
        if number >= length:
            raise InvalidRequest(
                f"{what} {number} is not mapped in the pod's user namespace, which has ids 0..{length - 1}"
            )


def check_mount(mount: api.Mount, maps: Maps | None) -> bool:
    """Whether a volume is to be id-mapped; raises InvalidRequest for another mapping than the pod's.

    Its mounts cannot reach the node: the kernel lets none out of a user namespace (mount_namespaces(7)).
    """
    if maps is not None and mount.propagation == api.PROPAGATION_BIDIRECTIONAL:
        raise InvalidRequest(
            f"mount {mount.container_path}: PROPAGATION_BIDIRECTIONAL is not possible in a pod with a user namespace"
        )
    if not mount.uidMappings and not mount.gidMappings:
        return False
    asked = {"uid": [*map(_numbers, mount.uidMappings)], "gid": [*map(_numbers, mount.gidMappings)]}
    if asked != maps:
        raise InvalidRequest(
            f"mount {mount.container_path}: uidMappings and gidMappings are not those of the pod's user namespace"
        )
    return True


def try_volumes(volumes: Iterable[Mapping[str, Any]], pin: Path) -> None:
    """Id-map each volume that asks for it, for a moment; `pin` names the pod's user namespace. Blocks.

    Raises WrongState for a filesystem that cannot do it, which otherwise only the start would find out.
    """
    for volume in volumes:
        if volume.get("uidMappings"):
            with Fd(os.open(pin, os.O_RDONLY | os.O_CLOEXEC)) as userns, Fd(bind(volume["source"])) as copy:
                try:
                    idmap(copy.fileno(), userns.fileno(), volume["source"])
                except OSError as error:
                    raise WrongState(
                        f"mount {volume['destination']}: {explain(error)}; put the volume on another filesystem, "
                        "such as ext4 or xfs, or set hostUsers: true for this pod"
                    ) from error


def oci_mappings(maps: Maps | None) -> dict[str, Any]:
    """`uidMappings` and `gidMappings` of an OCI config, of linux or of a mount; empty without a user namespace."""
    return {
        f"{kind}Mappings": [
            {"containerID": inside, "hostID": outside, "size": length} for inside, outside, length in lines
        ]
        for kind, lines in (maps or {}).items()
    }


class UserNamespaces:
    """Whether pods can have one on this host; found out by making one with an overlay of id-mapped layers.

    That they can be had is true for good. Why not may be the moment's trouble, a trial that ran out of time or of
    space: it is tried again a minute later.
    """

    def __init__(self, runtime: Runtime, root: Path) -> None:
        """`root` is where images' layers are: it depends on their filesystem."""
        self._runtime = runtime
        self._root = root
        self._problem: str | None = None
        self._tried_at = 0.0
        self._trying = asyncio.Lock()

    async def problem(self) -> str:
        """Why they cannot be had; empty when they can. Raises nothing: what cannot be found out is a problem too."""
        async with self._trying:
            late = bool(self._problem) and time.monotonic() - self._tried_at > RETRY_SECONDS
            if self._problem is None or late:
                self._problem = await self._runtime.try_user_namespace(str(self._root))
                self._tried_at = time.monotonic()
            return self._problem

    async def check(self, external: str) -> None:
        """Raise WrongState where they cannot be had; `external` names the pod's runtime if it is not the built-in."""
        if external:
            raise WrongState(f"{FIELD}: the runtime handler {external!r} offers no user namespaces; see Status")
        if problem := await self.problem():
            raise WrongState(
                f"{FIELD}: user namespaces with id-mapped layers cannot be had on this host: {problem}; "
                "set hostUsers: true for this pod, or see nodectl doctor"
            )
