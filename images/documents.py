"""The JSON documents of an image: index, manifest and config, checked field by field as they are read.

OCI image-spec 1.1 (image-index.md, manifest.md, config.md) and Docker's schema 2. What comes out is typed and
bounded; a field that this project has no use for is ignored, as both specifications demand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from images.digest import Digest
from images.errors import InvalidDigest, MalformedImage, TooLarge, UnsupportedImage
from images.limits import Limits
from images.media import CONFIGS, DOCKER_SCHEMA1, INDEXES, LAYERS, MANIFESTS
from images.platform import Platform

#: The fields of an image config's `config` object that we act on, with their types.
STRING_FIELDS = ("User", "WorkingDir", "StopSignal")
LIST_FIELDS = ("Env", "Cmd", "Entrypoint", "Shell")
SET_FIELDS = ("ExposedPorts", "Volumes")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A link to content: its type, digest and size in bytes (image-spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: int

    @classmethod
    def parse(cls, doc: object, what: str) -> Descriptor:
        """From JSON; `what` names it in errors. `urls` are never followed: they would make us call any address."""
        if not isinstance(doc, dict):
            raise MalformedImage(f"{what}: want an object, got {type(doc).__name__}")
        size = doc.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise MalformedImage(f"{what}: size {str(size)[:40]!r} is no byte count")
        try:
            return cls(str(doc.get("mediaType") or ""), Digest.parse(doc.get("digest")), size)
        except InvalidDigest as error:
            raise MalformedImage(f"{what}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """The form of a manifest and of our records."""
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}


@dataclass(frozen=True, slots=True)
class Index:
    """The same image for several platforms, in the author's order of preference.

    An entry may leave its platform out: a layout of one image does, and an index that leads to another one.
    """

    entries: tuple[tuple[Descriptor, Platform | None], ...]

    def choose(self, platform: Platform) -> Descriptor | None:
        """The image that fits best; the first one among equals, and one that does not say what it is for at last."""
        ranked = [
            (rank, entry) for entry, offered in self.entries if offered and (rank := platform.rank(offered)) is not None
        ]
        silent = [entry for entry, offered in self.entries if offered is None]
        return min(ranked, key=lambda pair: pair[0])[1] if ranked else next(iter(silent), None)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its config, and its layers from the lowest up."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says about itself; `config` is the object that OCI calls so, checked and without nulls."""

    platform: Platform
    config: Mapping[str, Any]
    diff_ids: tuple[Digest, ...]
    created: str


def parse_manifest(body: bytes, media_type: str, limits: Limits, what: str) -> Index | Manifest:
    """Read a manifest or an index; the type comes from the document, or else from the server's Content-Type."""
    doc = _load(body, limits.manifest, what)
    media_type = str(doc.get("mediaType") or media_type)
    if media_type.startswith(DOCKER_SCHEMA1) or doc.get("schemaVersion") == 1:
        raise UnsupportedImage(f"{what}: Docker image manifest schema 1 is not supported: push the image again")
    if "manifests" in doc and ("layers" in doc or "config" in doc):
        # Two readers could take it for two different images with one digest (CVE-2021-41190).
        raise MalformedImage(f"{what}: is an index and an image manifest in one")
    if media_type in INDEXES or (media_type not in MANIFESTS and "manifests" in doc):
        return _parse_index(doc, what)
    if media_type in MANIFESTS or "layers" in doc:
        return _parse_image(doc, limits, what)
    raise MalformedImage(f"{what}: {media_type[:80] or 'a document without mediaType'} is no image manifest")


def _parse_index(doc: Mapping[str, Any], what: str) -> Index:
    entries: list[tuple[Descriptor, Platform | None]] = []
    for position, entry in enumerate(_list(doc, "manifests", what)):
        descriptor = Descriptor.parse(entry, f"{what}: manifests[{position}]")
        platform = entry.get("platform")
        if isinstance(platform, dict) and descriptor.media_type in MANIFESTS | INDEXES | {""}:
            entries.append((descriptor, Platform.from_json(platform)))
        elif platform is None and descriptor.media_type in MANIFESTS | INDEXES:
            entries.append((descriptor, None))
    return Index(tuple(entries))


def _parse_image(doc: Mapping[str, Any], limits: Limits, what: str) -> Manifest:
    config = Descriptor.parse(doc.get("config"), f"{what}: config")
    if config.media_type not in CONFIGS:
        raise UnsupportedImage(f"{what}: a {config.media_type[:80]!r} is an artifact, not a container image")
    if config.size > limits.config:
        raise TooLarge(f"{what}: a config of {config.size} bytes, the limit is {limits.config}")
    listed = _list(doc, "layers", what)
    if len(listed) > limits.layers:
        raise TooLarge(f"{what}: {len(listed)} layers, the limit is {limits.layers}")
    layers = tuple(Descriptor.parse(layer, f"{what}: layers[{at}]") for at, layer in enumerate(listed))
    for layer in layers:
        if layer.media_type not in LAYERS:
            hint = " (encrypted: no keys here)" if "encrypted" in layer.media_type else ""
            raise UnsupportedImage(f"{what}: cannot unpack a layer of type {layer.media_type[:80]!r}{hint}")
        if layer.size > limits.blob:
            raise TooLarge(f"{what}: layer {layer.digest} of {layer.size} bytes, the limit is {limits.blob}")
    return Manifest(config, layers)


def parse_config(body: bytes, limits: Limits, what: str) -> ImageConfig:
    """Read an image config; a wrong type in a field that containers are made from is an error here, not later."""
    doc = _load(body, limits.config, what)
    rootfs = doc.get("rootfs")
    if not isinstance(rootfs, dict):
        raise MalformedImage(f"{what}: no rootfs")
    try:
        diff_ids = tuple(Digest.parse(text) for text in _list(rootfs, "diff_ids", f"{what}: rootfs"))
    except InvalidDigest as error:
        raise MalformedImage(f"{what}: rootfs.diff_ids: {error}") from error
    config = doc.get("config")
    if config is not None and not isinstance(config, dict):
        raise MalformedImage(f"{what}: config: want an object, got {type(config).__name__}")
    present = {key: value for key, value in (config or {}).items() if value is not None}
    _check_config(present, what)
    return ImageConfig(Platform.from_json(doc), present, diff_ids, str(doc.get("created") or ""))


def _check_config(config: Mapping[str, Any], what: str) -> None:
    for name in STRING_FIELDS:
        if not isinstance(config.get(name, ""), str):
            raise MalformedImage(f"{what}: config.{name}: want a string")
    for name in LIST_FIELDS:
        value = config.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise MalformedImage(f"{what}: config.{name}: want a list of strings")
    for name in SET_FIELDS:
        if not isinstance(config.get(name, {}), dict):
            raise MalformedImage(f"{what}: config.{name}: want an object")
    labels = config.get("Labels", {})
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise MalformedImage(f"{what}: config.Labels: want an object of strings")


def _load(body: bytes, limit: int, what: str) -> dict[str, Any]:
    if len(body) > limit:
        raise TooLarge(f"{what}: {len(body)} bytes, the limit is {limit}")
    try:
        doc = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedImage(f"{what}: not JSON: {error}") from error
    if not isinstance(doc, dict):
        raise MalformedImage(f"{what}: want an object, got {type(doc).__name__}")
    return doc


def _list(doc: Mapping[str, Any], key: str, what: str) -> list[Any]:
    value = doc.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedImage(f"{what}: {key}: want a list")
    return value
