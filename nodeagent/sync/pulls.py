"""Images for containers: present, pulled, or the reason why not. Pulls run beside the pod's worker, never in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from cri.client import CriClient, CriError
from cri.proto import api_pb2
from nodeagent.pods.pod import Key
from nodeagent.sync.backoff import Backoff
from nodeagent.sync.journal import Journal
from nodeagent.sync.plan import Waiting
from nodeagent.translate.container import Image
from nodeagent.translate.security import ImageUser

#: Seconds. A pull that still moves after an hour is better begun anew by an operator.
PULL_TIMEOUT = 3600.0
#: Pulls under way on the node; a runtime pulls the layers of each in parallel already.
AT_ONCE = 4


class ImageFailed(Exception):
    """`reason` is the kubelet's word for it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ImageService:
    """The images of one runtime, for all pods of the node."""

    def __init__(self, cri: CriClient) -> None:
        self._cri = cri
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def present(self, name: str) -> Image | None:
        """Raises ImageFailed."""
        try:
            answer = await self._cri.ImageStatus(image=api_pb2.ImageSpec(image=name), timeout=30.0)
        except CriError as error:
            raise _failed(name, error, "ImageInspectError") from error
        if not answer.HasField("image") or not answer.image.id:
            return None
        image = answer.image
        uid = image.uid.value if image.HasField("uid") else None
        return Image(image.id, name, ImageUser(uid, image.username))

    async def pull(self, name: str) -> Image:
        """Raises ImageFailed."""
        async with self._slots:
            try:
                answer = await self._cri.PullImage(image=api_pb2.ImageSpec(image=name), timeout=PULL_TIMEOUT)
            except CriError as error:
                raise _failed(name, error, "ErrImagePull") from error
        # What the pull gave, not the name: another pull may move a tag meanwhile.
        pulled = await self.present(answer.image_ref)
        if pulled is None:
            raise ImageFailed("ErrImagePull", f'image "{name}" was pulled as {answer.image_ref} and is gone again')
        return Image(pulled.id, name, pulled.user)


class PodImages:
    """The images of one pod's containers. `wake` is called when one of them is there, or has failed."""

    def __init__(self, key: Key, images: ImageService, journal: Journal, wake: Callable[[], None]) -> None:
        self._key = key
        self._images = images
        self._journal = journal
        self._wake = wake
        self._tasks: dict[str, asyncio.Task[Image]] = {}
        self._backoffs: dict[str, Backoff] = {}

    async def get(self, container: dict[str, Any]) -> Image | Waiting:
        """The image for one start of the container, or what to wait for. With policy Always each start asks anew."""
        name, image, policy = container["name"], container["image"], container["imagePullPolicy"]
        task = self._tasks.get(name)
        if task is not None:
            if not task.done():
                return Waiting("ContainerCreating", f'pulling image "{image}"')
            del self._tasks[name]
            return self._outcome(name, image, task)
        if policy != "Always":
            try:
                present = await self._images.present(image)
            except ImageFailed as error:
                return self._failed(name, error)
            if present is not None:
                return present
            if policy == "Never":
                message = f'image "{image}" is not on this node and imagePullPolicy is Never'
                return self._failed(name, ImageFailed("ErrImageNeverPull", message))
        self._journal.tell(self._key, "Pulling", f'pulling image "{image}"')
        task = self._tasks[name] = asyncio.create_task(self._images.pull(image), name=f"pull {image}")
        task.add_done_callback(lambda _: self._wake())
        return Waiting("ContainerCreating", f'pulling image "{image}"')

    def close(self) -> None:
        """The pod is no longer wanted: pulls that only it waits for end."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._backoffs.clear()

    def _outcome(self, name: str, image: str, task: asyncio.Task[Image]) -> Image | Waiting:
        try:
            pulled = task.result()
        except ImageFailed as error:
            return self._failed(name, error)
        self._backoffs.pop(name, None)
        self._journal.tell(self._key, "Pulled", f'image "{image}" is pulled as {pulled.id}')
        return pulled

    def _failed(self, name: str, error: ImageFailed) -> Waiting:
        until = self._backoffs.setdefault(name, Backoff()).failed(time.time_ns())
        self._journal.warn(self._key, error.reason, error.message)
        reason = "ImagePullBackOff" if error.reason == "ErrImagePull" else error.reason
        return Waiting(reason, error.message, until)


def _failed(name: str, error: CriError, reason: str) -> ImageFailed:
    if error.code == "INVALID_ARGUMENT":
        reason = "InvalidImageName"
    return ImageFailed(reason, f'image "{name}": {error.details or error.code}')
