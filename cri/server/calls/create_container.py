"""CreateContainer: settle everything that can be settled before the start, and write it down.

What is made: the snapshots of the root file system and of image volumes (the image store puts them into the ledger
itself), then the record. A failure in between gives the snapshots back.
"""

from __future__ import annotations

import asyncio
import logging
import posixpath
import secrets
import time
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.checkpoint import origin, workplace
from cri.server.daemon import Daemon
from cri.server.errors import AlreadyExists, InvalidRequest, NotFound, WrongState
from cri.server.joins import Joins
from cri.server.pods import Container, Sandbox
from cri.server.specs.container import Settled, settle
from cri.server.specs.sandbox import CONFIG_LIMIT
from cri.server.specs.signals import stop_signal
from images import Image
from runtime.linux.failpoints import failpoint

log = logging.getLogger("crid")

FAILPOINTS = ("crid.create_container.before_record",)

LOG_PATH_LIMIT = 4095  # PATH_MAX less the NUL


async def create_container(daemon: Daemon, request: api.CreateContainerRequest) -> api.CreateContainerResponse:
    """A CREATED container. A repetition of a request that is under way joins it."""
    sandbox = daemon.store.sandboxes.get(request.pod_sandbox_id)
    config = request.config
    if not config.HasField("metadata") or not config.metadata.name:
        raise InvalidRequest("config.metadata.name is missing: it names the container within its pod")
    if config.ByteSize() > CONFIG_LIMIT:
        raise InvalidRequest(f"config takes {config.ByteSize()} bytes, more than the limit of {CONFIG_LIMIT}")
    _check_state(sandbox)
    _check_name(sandbox, config.metadata)
    joins: Joins[str] = daemon.containers_under_way
    key = (sandbox.id, config.metadata.name, config.metadata.attempt)
    asked = request.SerializeToString(deterministic=True)
    id = await joins.run(key, asked, lambda: _make(daemon, sandbox, request))
    return api.CreateContainerResponse(container_id=id)


def _check_state(sandbox: Sandbox) -> None:
    if not sandbox.ready:
        raise WrongState(f"sandbox {sandbox.id[:13]} of pod {sandbox.name} is not ready; run a new one")


def _check_name(sandbox: Sandbox, metadata: api.ContainerMetadata) -> None:
    for container in sandbox.containers.values():
        if container.config.metadata == metadata:
            raise AlreadyExists(
                f"container {container.name}, attempt {metadata.attempt}, exists as {container.id[:13]}; "
                "remove it, or ask for the next attempt"
            )


async def _make(daemon: Daemon, sandbox: Sandbox, request: api.CreateContainerRequest) -> str:
    id = secrets.token_hex(32)
    snapshots: list[str] = []
    container: Container | None = None
    try:
        image = await _image(daemon, sandbox, id, request.config)
        settled = await settle(daemon, sandbox, id, request.config, image, snapshots)
        settled.spec.log_path = log_path(sandbox.config, request.config)
        if origin.is_checkpoint(request.config):
            await origin.lay_down(daemon, id, snapshots[0])
        container = _container(id, sandbox, request.config, image, settled, snapshots)
        await daemon.nri.create(container)
        failpoint("crid.create_container.before_record")
        _check_state(sandbox)  # it may have been stopped while the image was being prepared
        daemon.store.add_container(container)
    except BaseException as error:
        error.add_note(f"while creating container {request.config.metadata.name[:80]} of pod {sandbox.name}")
        await _take_back(daemon, id, snapshots, error)
        if container is not None:
            await daemon.nri.undo_create(container)
        raise
    await daemon.nri.created(container)
    daemon.events.publish(api.CONTAINER_CREATED_EVENT, id, sandbox)
    return id


def _container(
    id: str, sandbox: Sandbox, config: api.ContainerConfig, image: Image, settled: Settled, snapshots: list[str]
) -> Container:
    identity = settled.identity
    return Container(
        id=id,
        sandbox=sandbox,
        config=config,
        spec=settled.spec,
        image_id=image.id,
        image_ref=image.digest_ref,
        image_name=image_name(config.image, image),
        user=api.LinuxContainerUser(uid=identity.uid, gid=identity.gid, supplemental_groups=identity.groups),
        stop_signal=stop_signal(config.stop_signal, _text(image.config.get("StopSignal"))),
        resources=config.linux.resources,
        created_at=time.time_ns(),
        snapshots=snapshots,
    )


async def _take_back(daemon: Daemon, id: str, snapshots: list[str], reason: BaseException) -> None:
    """What cannot be undone now keeps its ledger entry, for the next start."""
    try:
        for key in snapshots:
            await asyncio.shield(daemon.images.containers.release(key))
        await asyncio.shield(workplace.discard(daemon, id))
    except Exception as error:
        log.exception("container %s is left half-made; the next start takes it back", id)
        reason.add_note(f"taking it back failed as well: {error}")


async def _image(daemon: Daemon, sandbox: Sandbox, id: str, config: api.ContainerConfig) -> Image:
    if origin.is_checkpoint(config):
        return await origin.unpack(daemon, sandbox, id, config)
    return image_of(daemon, config)


def image_of(daemon: Daemon, config: api.ContainerConfig) -> Image:
    """The image of a container; raises NotFound, InvalidRequest."""
    reference = config.image.image
    if not reference:
        raise InvalidRequest(f"container {config.metadata.name}: image is missing")
    if (image := daemon.images.get(reference)) is None:
        raise NotFound(f"image {reference[:200]!r} is not on this node; pull it first")
    return image


def image_name(asked: api.ImageSpec, image: Image) -> str:
    """What the user called the image: the kubelet asks for the id that a pull has answered with."""
    if not image.id.removeprefix("sha256:").startswith(asked.image.removeprefix("sha256:")):
        return asked.image
    return asked.user_specified_image or next(iter([*image.repo_tags, *image.repo_digests]), image.id)


def log_path(sandbox: api.PodSandboxConfig, config: api.ContainerConfig) -> str:
    """The absolute path of the log, below the pod's log directory; empty when the client wants none.

    Raises InvalidRequest for a path that leaves it.
    """
    if not sandbox.log_directory or not config.log_path:
        return ""
    relative = posixpath.normpath(config.log_path)
    if relative.startswith(("/", "../")) or relative in ("..", ".") or "\0" in relative:
        raise InvalidRequest(f"log_path {config.log_path[:200]!r} is not a path below the pod's log directory")
    path = posixpath.join(sandbox.log_directory, relative)
    if len(path.encode()) > LOG_PATH_LIMIT:
        raise InvalidRequest(f"log_path is longer than {LOG_PATH_LIMIT} bytes")
    return path


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
