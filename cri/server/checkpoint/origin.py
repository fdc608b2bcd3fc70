"""CreateContainer from a checkpoint: the image of the request is the path of an archive, as with containerd and CRI-O.

Of the archive count CRIU's images and the changed files; the image below is looked up among those that are here, by
the name in config.dump, and never pulled or tagged (CVE-2026-50195). Mounts, devices, labels and annotations are the
request's (CVE-2024-8676, CVE-2026-53492). Whoever may call may run every image of the node, with or without credentials
for its registry: who may use a private image is for a kubelet to know (KEP-2535), which names no archive by its path.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from cri.proto import api_pb2 as api
from cri.server.checkpoint import archive
from cri.server.checkpoint.documents import CONFIG, LIMIT, base_image
from cri.server.checkpoint.take import check_kind
from cri.server.checkpoint.workplace import IMAGES, make, place_of
from cri.server.daemon import Daemon
from cri.server.errors import InvalidRequest, NotFound
from cri.server.pods import Sandbox
from cri.server.specs.sources import look
from images import Image
from runtime.linux.files import read_limited

#: How long an archive may take to be read from where the client has it.
UNPACK_SECONDS = 300.0


def is_checkpoint(config: api.ContainerConfig) -> bool:
    """Whether the request names an archive: no image's name begins with a slash."""
    return bool(config.image.image.startswith("/"))


async def unpack(daemon: Daemon, sandbox: Sandbox, id: str, config: api.ContainerConfig) -> Image:
    """Unpack the archive to where the container will find it; returns the image below.

    The directory is named by the container and the caller's to discard. Raises InvalidRequest, NotFound, WrongState,
    Exhausted, OSError.
    """
    await daemon.criu.program()  # before the work, because later it would be for nothing
    check_kind(sandbox, config.linux.security_context.namespace_options.target_id)
    path, limit = config.image.image, daemon.config.checkpoint.limit
    place = await make(daemon, id)
    await look(os.path.dirname(path), _unpack, path, place, limit, seconds=UNPACK_SECONDS)
    return await _image(daemon, place, path)


def _unpack(path: str, place: Path, limit: int) -> None:
    fd = archive.open_archive(path)
    try:
        archive.unpack_archive(fd, place, place / IMAGES, limit)
    finally:
        os.close(fd)


async def _image(daemon: Daemon, place: Path, path: str) -> Image:
    try:
        document = await asyncio.to_thread(read_limited, place / CONFIG, LIMIT)
    except FileNotFoundError as error:
        raise InvalidRequest(f"{path[:200]} is no checkpoint: it has no {CONFIG}") from error
    names = base_image(document)
    for name in names:
        if image := daemon.images.get(name):
            return image
    raise NotFound(f"the checkpoint is of a container of image {names[-1][:200]!r}, which is not here; pull it first")


async def lay_down(daemon: Daemon, id: str, snapshot: str) -> None:
    """Put the files that the checkpointed container had changed into the new one's writable layer."""
    layer = place_of(daemon, id) / archive.ROOTFS
    if layer.exists():
        await daemon.images.containers.lay_down(snapshot, layer, daemon.config.checkpoint.limit)
