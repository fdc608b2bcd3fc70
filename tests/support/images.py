"""Images for tests: built from busybox or from a few bytes, and pushed to a tests.support.registry.Registry.

    push_image(registry, "demo:1", [busybox_rootfs()], config={"Cmd": ["sh"]})

A layer is a list of images.build.LayerFile, or the bytes of a tar (hostile ones, say). `form` picks what registries
hold in practice: "gzip", "zstd" or "plain" layers; `docker=True` uses Docker's media types in place of OCI's.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from images.build import LayerFile, busybox_tree, layer_tar
from images.media import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)
from images.platform import Platform
from tests.support.registry import Registry

Layer = Sequence[LayerFile] | bytes


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was pushed: the full reference, the image id (digest of the config), the manifest's digest."""

    ref: str
    image_id: str
    digest: str
    diff_ids: tuple[str, ...]
    blobs: tuple[str, ...]


@functools.cache
def _busybox_rootfs() -> tuple[LayerFile, ...]:
    return tuple(busybox_tree())


def busybox_rootfs() -> list[LayerFile]:
    """A root file system with every applet as a hard link in /bin, /etc/passwd and /etc/group."""
    return list(_busybox_rootfs())


def push_image(
    registry: Registry,
    name: str,
    layers: Sequence[Layer] | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    form: str = "gzip",
    docker: bool = False,
    platform: Platform | None = None,
    claimed: Sequence[str] = (),
) -> Pushed:
    """Push an image as `name` ("repo:tag"); without layers it is busybox, without a config its Cmd is `sh`.

    `claimed`: the diff ids that its config lies about.
    """
    repository, _, tag = name.rpartition(":")
    tars = [layer if isinstance(layer, bytes) else layer_tar(layer) for layer in layers or [busybox_rootfs()]]
    diff_ids = tuple(f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars)
    blobs = [compress(tar, form) for tar in tars]
    document = {
        **(platform or Platform.host()).to_json(),
        "config": dict(config if config is not None else {"Cmd": ["sh"]}),
        "rootfs": {"type": "layers", "diff_ids": claimed or diff_ids},
        "history": [],
    }
    body = json.dumps(document).encode()
    image_id = registry.push_blob(repository, body)
    digests = tuple(registry.push_blob(repository, blob) for blob in blobs)
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
        "config": _descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, image_id, len(body)),
        "layers": [
            _descriptor(layer_type(form, docker), digest, len(blob))
            for digest, blob in zip(digests, blobs, strict=True)
        ],
    }
    digest = registry.push_manifest(repository, tag, manifest, str(manifest["mediaType"]))
    return Pushed(f"{registry.host}/{name}", image_id, digest, diff_ids, digests)


def push_index(registry: Registry, name: str, images: Mapping[str, Pushed], *, docker: bool = False) -> str:
    """Push an index of images that are in the same repository already, by platform ("linux/amd64"); its digest."""
    repository, _, tag = name.rpartition(":")
    entries = []
    for platform, image in images.items():
        _, headers, body = registry.request(
            "GET",
            f"/v2/{repository}/manifests/{image.digest}",
            headers={"Accept": f"{OCI_MANIFEST}, {DOCKER_MANIFEST}"},
        )
        entry = _descriptor(headers["content-type"], image.digest, len(body))
        entries.append({**entry, "platform": Platform.parse(platform).to_json()})
    media_type = DOCKER_INDEX if docker else OCI_INDEX
    index = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    return registry.push_manifest(repository, tag, index, media_type)


def compress(tar: bytes, form: str) -> bytes:
    """A layer blob of this form."""
    match form:
        case "gzip":
            return gzip.compress(tar, 1, mtime=0)
        case "zstd":
            return zstandard.ZstdCompressor(level=1).compress(tar)
        case "plain":
            return tar
    raise ValueError(f"no such form of a layer: {form}")


def layer_type(form: str, docker: bool) -> str:
    """The media type that says so."""
    suffix = "" if form == "plain" else ("." if docker else "+") + form
    return (DOCKER_LAYER if docker else OCI_LAYER) + suffix


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}
