"""CheckpointPod: containers of a pod into a directory, as of one moment (KEP-5823).

    <output_path>/pod.dump         which pod, which containers, which archive is whose
    <output_path>/<container>.tar  one archive each, as CheckpointContainer writes them

All are paused, then captured one after the other, then all go on, whatever happens; a failure leaves the directory as
empty as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cri.proto import api_pb2 as api
from cri.server.checkpoint.take import check_container, paused, take
from cri.server.daemon import Daemon
from cri.server.errors import Exhausted, InvalidRequest, WrongState, words_of
from cri.server.pods import Container, Sandbox
from cri.server.specs.sources import look
from runtime.linux.files import write_atomic

POD = "pod.dump"
VERSION = 1
SECONDS = 600.0


async def checkpoint_pod(daemon: Daemon, request: api.CheckpointPodRequest) -> api.CheckpointPodResponse:
    """Raises InvalidRequest, WrongState, Exhausted, OSError."""
    sandbox = daemon.store.sandboxes.get(request.pod_sandbox_id)
    refuse_options(request.options)
    try:
        containers = _containers(sandbox, request.container_ids)
        await look(request.output_path, _check_directory, request.output_path)
        program = await daemon.criu.program()
        await _take_all(daemon, sandbox, containers, program, Path(request.output_path))
    except Exception as error:
        error.add_note(f"while checkpointing pod {sandbox.name}")
        raise
    return api.CheckpointPodResponse()


def refuse_options(options: Iterable[str]) -> None:
    """The interface wants unknown options refused, and no option is known."""
    if names := sorted(options):
        raise InvalidRequest(f"options: {names[0][:100]!r} is unknown; this runtime has no options here")


def _containers(sandbox: Sandbox, ids: Sequence[str]) -> list[Container]:
    if not ids:
        raise InvalidRequest("container_ids is empty: it names the containers to be captured")
    if len(set(ids)) != len(ids):
        raise InvalidRequest("container_ids names a container twice")
    found = []
    for id in ids:
        container = sandbox.containers.get(id)
        if container is None:
            raise InvalidRequest(f"container {id[:80]!r} is not of pod {sandbox.name}")
        check_container(container)
        found.append(container)
    names = [container.config.metadata.name for container in found]
    if bad := [name for name in names if "/" in name or name.startswith(".") or names.count(name) > 1]:
        raise InvalidRequest(f"container name {bad[0][:80]!r} cannot be the name of one archive")
    return found


def _check_directory(path: str) -> None:
    if not path.startswith("/"):
        raise InvalidRequest(f"output_path {path[:200]!r} is not absolute")
    if os.path.islink(path) or not os.path.isdir(path):
        raise InvalidRequest(f"output_path {path[:200]!r} is no directory; make an empty one")
    if os.listdir(path):
        raise WrongState(f"output_path {path[:200]!r} is not empty")


async def _take_all(
    daemon: Daemon, sandbox: Sandbox, containers: Sequence[Container], program: str, directory: Path
) -> None:
    archives = {each.config.metadata.name: f"{each.config.metadata.name}.tar" for each in containers}
    try:
        async with contextlib.AsyncExitStack() as held:
            for container in sorted(containers, key=lambda each: each.id):  # whoever takes several takes them in order
                await held.enter_async_context(daemon.store.containers.held(container))
            await held.enter_async_context(paused(containers))
            for container in containers:
                location = str(directory / archives[container.config.metadata.name])
                await take(daemon, container, program, location, SECONDS)
        metadata = sandbox.config.metadata
        document = {
            "version": VERSION,
            "pod": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid, "id": sandbox.id},
            "containers": archives,
        }
        await look(str(directory), write_atomic, directory / POD, json.dumps(document, indent=1).encode())
    except BaseException as error:
        await asyncio.shield(_take_back(directory, archives.values(), error))
        raise


async def _take_back(directory: Path, archives: Iterable[str], reason: BaseException) -> None:
    def work() -> None:
        for name in archives:
            (directory / name).unlink(missing_ok=True)

    try:
        await look(str(directory), work)
    except (Exhausted, OSError) as error:
        reason.add_note(f"and what has been written to {directory} could not be removed: {words_of(error)}")
