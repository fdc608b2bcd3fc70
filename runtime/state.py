"""What a shim keeps on disk, so that whoever comes after it can tell what ran and how it ended.

    <state>/sandboxes/<id>/         made by crid, mode 0700
        shim.sock                   SEQPACKET, 0600: where crid finds the shim again
        shim.json                   the shim's process and its builder's, the sandbox's cgroup
        ns/net, ns/ipc, ns/uts      bind mounts: the pod's namespaces by name; ns/user where it has one
        shm/                        tmpfs: the pod's /dev/shm
        etc/                        tmpfs, made by crid: files for the containers' /etc
        containers/<id>.json        one per container: cgroup directories, then pid, then how it ended
        oci/<id>/                   its bundle, if an external runtime makes it (runtime.external.bundle)
        shim.log                    only when something went wrong in the shim

All of it is under /run: it means nothing after a reboot, and files are replaced atomically (a reader sees the old one
or the new one). Whether a container runs is not stored: it has a pid and no exit code yet.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from runtime.errors import InvalidSpec
from runtime.linux.files import read_limited, write_atomic
from runtime.linux.messages import MESSAGE_MAX, compose

SOCKET = "shim.sock"
SHIM = "shim.json"
NAMESPACES = "ns"
USER = "user"
SHM = "shm"
ETC = "etc"
CONTAINERS = "containers"
BUNDLES = "oci"
LOG = "shim.log"
#: Where containers of sandboxes without a cgroup parent are.
DEFAULT_CGROUP = "/nodeagent"
#: A record holds a container's whole process, as the request to start it does.
FILE_LIMIT = MESSAGE_MAX


def write_shim(state_dir: str, doc: dict[str, Any]) -> None:
    """Record the shim's own process and cgroup."""
    write_atomic(f"{state_dir}/{SHIM}", compose(doc), durable=False)


def read_shim(state_dir: str) -> dict[str, Any]:
    """What write_shim() wrote; {} when the shim did not come that far."""
    try:
        return _read(f"{state_dir}/{SHIM}")
    except FileNotFoundError:
        return {}


def new_container(state_dir: str, container_id: str, doc: dict[str, Any]) -> bool:
    """Record a container that is about to be made; False when there is one of this id already.

    Raises InvalidSpec for one that could not be read again: its sandbox could never be stopped.
    """
    path = f"{state_dir}/{CONTAINERS}/{container_id}.json"
    if os.path.lexists(path):
        return False
    content = compose(doc)
    if len(content) > FILE_LIMIT:
        raise InvalidSpec(
            f"the process of container {container_id} takes {len(content)} bytes as JSON, more than the limit of "
            f"{FILE_LIMIT}; shorten its arguments and environment"
        )
    write_atomic(path, content, durable=False)
    return True


def write_container(state_dir: str, container_id: str, doc: dict[str, Any]) -> None:
    """Record one container; the directory exists since the sandbox was made."""
    write_atomic(f"{state_dir}/{CONTAINERS}/{container_id}.json", compose(doc), durable=False)


def bundle_path(state_dir: str, container_id: str) -> str:
    """Where the bundle of an external runtime's container is."""
    return f"{state_dir}/{BUNDLES}/{container_id}"


def forget_container(state_dir: str, container_id: str) -> None:
    """Remove a container's bundle, if it has one, and its record; no error when there is none."""
    bundle = bundle_path(state_dir, container_id)
    if os.path.isdir(bundle):
        from runtime.linux.trees import remove_tree  # not for the shims of other pods

        remove_tree(bundle)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{state_dir}/{CONTAINERS}/{container_id}.json")


def read_container(state_dir: str, container_id: str) -> dict[str, Any] | None:
    """One container's record, or None."""
    try:
        return _read(f"{state_dir}/{CONTAINERS}/{container_id}.json")
    except FileNotFoundError:
        return None


def read_containers(state_dir: str) -> list[dict[str, Any]]:
    """All containers' records, also of shims that are dead."""
    try:
        names = sorted(os.listdir(f"{state_dir}/{CONTAINERS}"))
    except FileNotFoundError:
        return []
    ids = [name.removesuffix(".json") for name in names if name.endswith(".json") and name[0] != "."]
    records = [read_container(state_dir, id) for id in ids]
    return [record for record in records if record is not None]  # others may be forgetting them


def has_ended(doc: dict[str, Any]) -> bool:
    """Whether a container's record says how it ended."""
    return "exit_code" in doc


def _read(path: str) -> dict[str, Any]:
    doc = json.loads(read_limited(path, FILE_LIMIT))
    if not isinstance(doc, dict):
        raise ValueError(f"{path} holds no object")
    return doc
