"""Volumes that an image declares (Dockerfile's VOLUME) and that nobody mounts anything at.

A declared directory that the image has is part of the container's own layer, as CRI-O has it by default. One that it
lacks no builder makes: programs rely on the runtime for it. It is a directory beside the container's writable layer,
writable also under a read-only root, and gone with the container.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence
from typing import Any

from cri.server.errors import InvalidRequest
from cri.server.image_files import merged_paths
from cri.server.security.selinux import relabel
from cri.server.security.user_namespaces import Maps, oci_mappings
from cri.server.specs.mounts import OciMount, merge_mounts
from runtime.linux.overlay import OverlayRootfs

#: Of one image; a hostile one could have us make any number of mounts.
LIMIT = 64


def with_declared(
    mounts: Sequence[OciMount], declared: Iterable[str], rootfs: OverlayRootfs, maps: Maps | None, label: str = ""
) -> list[OciMount]:
    """The container's mounts with one for each declared volume that would be missing. Blocks on our own file system.

    `label` is the SELinux label that the volumes get, if not "".
    Raises InvalidRequest for an image that declares too many, OSError.
    """
    taken = [mount["destination"].rstrip("/") + "/" for mount in mounts]
    paths = [path for path in _paths(declared) if not any(f"{path}/".startswith(place) for place in taken)]
    missing = [path for path in paths if not _has(rootfs.lower, path)]
    if len(missing) > LIMIT:
        raise InvalidRequest(f"the image declares {len(missing)} volumes that it does not have, more than {LIMIT}")
    return merge_mounts(mounts, [_volume(path, number, rootfs, maps, label) for number, path in enumerate(missing)])


def _paths(declared: Iterable[str]) -> list[str]:
    paths = sorted({posixpath.normpath(f"/{path.lstrip('/')}") for path in declared if path and "\0" not in path})
    return [path for path in paths if path != "/"]


def _has(layers: Sequence[str], path: str) -> bool:
    try:
        return bool(merged_paths(layers, path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _volume(path: str, number: int, rootfs: OverlayRootfs, maps: Maps | None, label: str) -> dict[str, Any]:
    source = os.path.join(os.path.dirname(rootfs.upper), "volumes", str(number))
    os.makedirs(source, exist_ok=True)
    os.chmod(source, 0o755)
    if label:
        relabel(source, label)
    options = ["rbind", "rprivate", "rw"]
    return {"destination": path, "type": "bind", "source": source, "options": options} | oci_mappings(maps)
