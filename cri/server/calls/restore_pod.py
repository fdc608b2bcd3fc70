"""RestorePod: a new pod with containers CREATED from a pod's checkpoint; StartContainer lets them go on (KEP-5823).

The configurations decide what the pod and its containers are; the checkpoint brings processes and changed files, and
must be of exactly these containers and, where they name one, of their image: else the author of an archive would choose
which private image of the node his processes can read. All containers, or nothing, is left: what a failure removes is
the pod that this call has made, and never one that was there.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.calls.checkpoint_pod import POD, VERSION, refuse_options
from cri.server.calls.create_container import create_container, image_of
from cri.server.calls.remove_pod_sandbox import remove_pod_sandbox
from cri.server.calls.run_pod_sandbox import run_pod_sandbox
from cri.server.checkpoint.origin import is_checkpoint
from cri.server.daemon import Daemon
from cri.server.errors import AlreadyExists, InvalidRequest, NotFound, words_of
from cri.server.pods import Container
from cri.server.specs.sources import look
from cri.server.store import sandbox_key
from runtime.linux.failpoints import failpoint
from runtime.linux.files import read_limited

LIMIT = 1 << 20
FAILPOINTS = ("crid.restore_pod.after_sandbox", "crid.restore_pod.after_containers")


async def restore_pod(daemon: Daemon, request: api.RestorePodRequest) -> api.RestorePodResponse:
    """A repetition of a request that is under way joins it.

    Raises InvalidRequest, NotFound, AlreadyExists, WrongState, and what running a pod and creating containers raise.
    """
    key, asked = sandbox_key(request.config.metadata), request.SerializeToString(deterministic=True)
    return await daemon.restores_under_way.run(key, asked, lambda: _restore(daemon, request))


async def _restore(daemon: Daemon, request: api.RestorePodRequest) -> api.RestorePodResponse:
    refuse_options(request.options)
    if not request.checkpoint_path.startswith("/"):
        raise InvalidRequest(f"checkpoint_path {request.checkpoint_path[:200]!r} is not absolute")
    directory = Path(request.checkpoint_path)
    archives = await look(request.checkpoint_path, _archives, directory)
    configs = {config.metadata.name: config for config in request.container_configs}
    if len(configs) != len(request.container_configs) or configs.keys() != archives.keys():
        raise InvalidRequest(
            f"container_configs names {sorted(configs)}, but the checkpoint is of {sorted(archives)}: "
            "each container once, and no others"
        )
    asked = {name: _image_id(daemon, config) for name, config in configs.items()}
    await daemon.criu.program()
    _check_is_new(daemon, request.config)
    run = api.RunPodSandboxRequest(config=request.config, runtime_handler=request.runtime_handler)
    id = (await run_pod_sandbox(daemon, run)).pod_sandbox_id
    response = api.RestorePodResponse(pod_sandbox_id=id)
    try:
        failpoint("crid.restore_pod.after_sandbox")
        for name, config in configs.items():
            create = api.CreateContainerRequest(pod_sandbox_id=id, config=config, sandbox_config=request.config)
            create.config.image.image = str(directory / archives[name])
            created = await create_container(daemon, create)
            _check_image(daemon.store.containers.get(created.container_id), asked[name], config)
            response.restored_containers.add(name=name, container_id=created.container_id)
        failpoint("crid.restore_pod.after_containers")
    except BaseException as error:
        error.add_note(f"while restoring a pod from {request.checkpoint_path[:200]}")
        await asyncio.shield(_take_back(daemon, id, error))
        raise
    return response


def _check_is_new(daemon: Daemon, config: api.PodSandboxConfig) -> None:
    """RunPodSandbox would answer with a pod of the same configuration, which is not ours to remove."""
    key = sandbox_key(config.metadata)
    if daemon.store.named_sandbox(key) or key in daemon.sandboxes_under_way:
        raise AlreadyExists(
            f"pod {config.metadata.namespace}/{config.metadata.name}, attempt {config.metadata.attempt}, exists; a "
            "checkpoint is restored into a new one: remove it, or ask for the next attempt"
        )


def _image_id(daemon: Daemon, config: api.ContainerConfig) -> str:
    """Of the image that a configuration names, "" for none."""
    return image_of(daemon, config).id if config.image.image and not is_checkpoint(config) else ""


def _check_image(container: Container, asked: str, config: api.ContainerConfig) -> None:
    if asked and container.image_id != asked:
        raise InvalidRequest(
            f"the checkpoint of container {config.metadata.name} is of image {container.image_ref}, "
            f"but its configuration names {config.image.image[:200]}"
        )


async def _take_back(daemon: Daemon, id: str, reason: BaseException) -> None:
    try:
        await remove_pod_sandbox(daemon, api.RemovePodSandboxRequest(pod_sandbox_id=id))
    except Exception as error:  # noqa: BLE001 - the first error is the one to report
        reason.add_note(f"removing the new pod {id[:13]} failed as well: {words_of(error)}")


def _archives(directory: Path) -> dict[str, str]:
    """The archive of each container; names are plain, so that none leads out of the directory."""
    try:
        document: Any = json.loads(read_limited(directory / POD, LIMIT))
    except FileNotFoundError as error:
        raise NotFound(f"{directory} holds no checkpoint of a pod: it has no {POD}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{directory / POD} cannot be read: {error}") from error
    containers = document.get("containers") if isinstance(document, dict) else None
    if not isinstance(containers, dict) or document.get("version") != VERSION:
        raise InvalidRequest(f"{directory / POD} is of no version that is known here")
    for name, archive in containers.items():
        if archive != f"{name}.tar" or "/" in archive or archive.startswith("."):
            raise InvalidRequest(
                f"{directory / POD} names an archive {archive!a}, which cannot be container {name!a}'s"
            )
    return containers
