"""Which images an archive holds, and what they are called.

OCI image-spec, image-layout.md; `docker save` writes a manifest.json that lists configs and layers by file name, and
newer versions of it write both forms into one tar, of which the first is taken.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.archive.files import CHUNK, DirectoryFiles, Files, TarFiles
from images.archive.source import ArchiveSource
from images.digest import Digest
from images.documents import Descriptor
from images.errors import ImageError, ImageNotFound, MalformedImage
from images.limits import Limits
from images.media import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, OCI_INDEX
from images.source import Fetched

NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")


@dataclass(frozen=True, slots=True)
class Found:
    """An image, with the names that the archive gives it."""

    names: tuple[str, ...]
    source: ArchiveSource


@contextmanager
def opened(path: Path, limits: Limits) -> Iterator[list[Found]]:
    """The images of an archive, readable inside the `with`. Blocks while it opens; raises ImageError, OSError."""
    files: Files = DirectoryFiles(path) if path.is_dir() else _tar(path, limits)
    try:
        yield _Reader(files, str(path), limits).images()
    finally:
        files.close()


def _tar(path: Path, limits: Limits) -> TarFiles:
    with path.open("rb") as file:
        if file.read(8).startswith(COMPRESSED):
            raise ImageError(f"{path} is compressed as a whole: decompress it first (its layers may be compressed)")
    return TarFiles(path, limits)


class _Reader:
    def __init__(self, files: Files, name: str, limits: Limits) -> None:
        self._files = files
        self._name = name
        self._limits = limits

    def images(self) -> list[Found]:
        try:
            index = self._read("index.json")
        except ImageNotFound:
            return [self._docker_image(entry) for entry in self._document("manifest.json", list)]
        return self._layout(index)

    def _layout(self, index: bytes) -> list[Found]:
        entries = self._document("index.json", dict).get("manifests")
        if not isinstance(entries, list) or not entries:
            raise MalformedImage(f"{self._name}: its index.json lists no image")
        if len(entries) > 1 and not any(_names(entry) for entry in entries):
            # One image for several platforms, without an index of its own.
            return [Found((), self._source(Fetched(index, OCI_INDEX, Digest.of(index))))]
        return [self._layout_image(position, entry) for position, entry in enumerate(entries)]

    def _layout_image(self, position: int, entry: Any) -> Found:
        descriptor = Descriptor.parse(entry, f"{self._name}: manifests[{position}] of index.json")
        body = self._read(_blob(descriptor.digest))
        return Found(_names(entry), self._source(Fetched(body, descriptor.media_type, descriptor.digest)))

    def _source(self, top: Fetched) -> ArchiveSource:
        return ArchiveSource(self._name, self._files, top, _blob, self._limits)

    def _docker_image(self, entry: Any) -> Found:
        """As a schema 2 manifest, which `docker save` leaves out; its digests are those of the files."""
        try:
            config, layers, tags = str(entry["Config"]), list(entry["Layers"]), list(entry.get("RepoTags") or [])
        except (KeyError, TypeError, AttributeError) as error:
            raise MalformedImage(f"{self._name}: manifest.json: want Config, Layers and RepoTags") from error
        members: dict[Digest, str] = {}
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": self._descriptor(config, DOCKER_CONFIG, members),
            "layers": [
                self._descriptor(str(layer), DOCKER_LAYER, members) for layer in layers[: self._limits.layers + 1]
            ],
        }
        body = json.dumps(manifest).encode()
        top = Fetched(body, DOCKER_MANIFEST, Digest.of(body))

        def member(digest: Digest) -> str:
            if digest not in members:
                raise ImageNotFound(f"{self._name}: nothing in it has the digest {digest}")
            return members[digest]

        return Found(tuple(map(str, tags)), ArchiveSource(self._name, self._files, top, member, self._limits))

    def _descriptor(self, member: str, media_type: str, members: dict[Digest, str]) -> dict[str, Any]:
        hasher, size = hashlib.sha256(), 0
        while chunk := self._files.read(member, size, CHUNK):
            hasher.update(chunk)
            size += len(chunk)
        digest = Digest(f"sha256:{hasher.hexdigest()}")
        members[digest] = member
        return Descriptor(media_type, digest, size).to_json()

    def _document(self, name: str, kind: type) -> Any:
        try:
            document = json.loads(self._read(name))
        except (ValueError, RecursionError) as error:
            raise MalformedImage(f"{self._name}: {name} is not JSON: {error}") from error
        if not isinstance(document, kind):
            raise MalformedImage(f"{self._name}: {name} is not a {kind.__name__}")
        return document

    def _read(self, name: str) -> bytes:
        body = self._files.read(name, 0, self._limits.manifest + 1)
        if len(body) > self._limits.manifest:
            raise MalformedImage(f"{self._name}: {name} is larger than {self._limits.manifest} bytes")
        return body


def _blob(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _names(entry: Any) -> tuple[str, ...]:
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    for key in NAME_ANNOTATIONS:
        name = annotations.get(key) if isinstance(annotations, dict) else None
        if isinstance(name, str) and any(mark in name for mark in ":/"):  # else it is only a tag
            return (name,)
    return ()
