"""ListImages, StreamImages, ImageStatus, PullImage, RemoveImage and ImageFsInfo."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator

from cri.proto import api_pb2 as api
from cri.server.calls.batches import batches
from cri.server.daemon import Daemon
from cri.server.errors import InvalidRequest
from cri.server.security.users import image_uid, split_image_user
from cri.server.usage.layers import filesystem_usage
from images import Auth, Image, ImageError


async def list_images(daemon: Daemon, request: api.ListImagesRequest) -> api.ListImagesResponse:
    return api.ListImagesResponse(images=[image_message(image) for image in _matching(daemon, request.filter)])


async def stream_images(daemon: Daemon, request: api.StreamImagesRequest) -> AsyncIterator[api.StreamImagesResponse]:
    for batch in batches(map(image_message, _matching(daemon, request.filter)), api.Image.ByteSize):
        yield api.StreamImagesResponse(images=batch)


def _matching(daemon: Daemon, filter: api.ImageFilter) -> list[Image]:
    if not filter.image.image:
        return daemon.images.list()
    found = daemon.images.get(filter.image.image)
    return [found] if found else []


async def image_status(daemon: Daemon, request: api.ImageStatusRequest) -> api.ImageStatusResponse:
    """An absent image is an answer without an image (api.proto, ImageStatus)."""
    image = daemon.images.get(_reference(request.image))
    if image is None:
        return api.ImageStatusResponse()
    info = {"info": json.dumps(_info(image))} if request.verbose else {}
    return api.ImageStatusResponse(image=image_message(image), info=info)


def _info(image: Image) -> dict[str, object]:
    """What of the image's own document people look for, under the names of the image-spec (config.md)."""
    system, _, machine = image.platform.partition("/")
    architecture, _, variant = machine.partition("/")
    spec = {"created": image.created, "os": system, "architecture": architecture, "variant": variant}
    known = {name: value for name, value in spec.items() if value}
    return {"imageSpec": {**known, "config": image.config}, "layers": list(image.layers)}


async def pull_image(daemon: Daemon, request: api.PullImageRequest) -> api.PullImageResponse:
    reference = _reference(request.image)
    daemon.handlers.find(request.image.runtime_handler)  # an unknown one is refused; all of them share the images
    auth = _auth(request.auth) if request.HasField("auth") else None
    try:
        image = await daemon.images.pull(
            reference, auth=auth, progress=lambda progress: daemon.pulls.update({reference: progress})
        )
    except ImageError as error:
        error.add_note(f"while pulling {reference[:200]}")
        raise
    finally:
        daemon.pulls.pop(reference, None)
    return api.PullImageResponse(image_ref=image.id)


async def remove_image(daemon: Daemon, request: api.RemoveImageRequest) -> api.RemoveImageResponse:
    """Idempotent: an unknown image is success (api.proto, RemoveImage). All names of the image go."""
    reference = _reference(request.image)
    if daemon.images.get(reference) is not None:
        await daemon.images.remove(reference)
    return api.RemoveImageResponse()


async def image_fs_info(daemon: Daemon, request: api.ImageFsInfoRequest) -> api.ImageFsInfoResponse:
    """What images take, and what containers have written, both on the file system of crid's root."""
    images = daemon.images.usage()
    layers = {container.snapshots[0]: container.finished_at for container in daemon.store.containers}
    written, inodes = await daemon.layers.total(layers)
    return api.ImageFsInfoResponse(
        image_filesystems=[filesystem_usage(images.path, images.bytes, images.inodes)],
        container_filesystems=[filesystem_usage(images.path, written, inodes)],
    )


def image_message(image: Image) -> api.Image:
    message = api.Image(
        id=image.id,
        repo_tags=image.repo_tags,
        repo_digests=image.repo_digests,
        size=max(1, image.size),
        spec=api.ImageSpec(image=image.id),
        pinned=image.pinned,
    )
    user = image.config.get("User")
    text = user if isinstance(user, str) else ""
    if (uid := image_uid(text)) is not None:
        message.uid.value = uid
    else:
        message.username, _ = split_image_user(text)
    return message


def _reference(spec: api.ImageSpec) -> str:
    if not spec.image:
        raise InvalidRequest("image.image is missing: it names the image")
    return spec.image


def _auth(config: api.AuthConfig) -> Auth:
    """The credentials of a pull; `auth` is user:password in base64, as docker's config.json has it."""
    username, password = config.username, config.password
    if config.auth and not username:
        try:
            username, _, password = base64.b64decode(config.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidRequest("auth.auth is not base64 of user:password") from None
    return Auth(
        username=username,
        password=password.rstrip("\0"),
        identity_token=config.identity_token,
        registry_token=config.registry_token,
        server_address=config.server_address,
    )
