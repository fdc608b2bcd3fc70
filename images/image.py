"""An image that is here: what it is called, what it is made of, how a container of it is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from images.digest import Digest
from images.reference import Reference


@dataclass(frozen=True, slots=True)
class Image:
    """`id` is the digest of its config, so it is the same image however it was packed and whatever it is called.

    `config` is the OCI image config's `config` object (Env, Cmd, Entrypoint, User, WorkingDir, ...), `size` the bytes
    of its manifests, config and layers as a registry stores them, `created` a time stamp in RFC 3339 or "".
    """

    id: str
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size: int
    config: Mapping[str, Any]
    #: Chain ids of the layers, the lowest first.
    layers: tuple[Digest, ...]
    #: Every blob that belongs to it.
    blobs: tuple[Digest, ...]
    created: str = ""
    platform: str = ""
    pinned: bool = False

    @property
    def user(self) -> str:
        """The user that its author chose: a name or number, perhaps with a group after a colon; "" for root."""
        return str(self.config.get("User") or "")

    @property
    def digest_ref(self) -> str:
        """repository@digest, where a registry has it; else the id."""
        return next(iter(self.repo_digests), self.id)

    def named(self, reference: Reference, manifest: Digest | None = None) -> Image:
        """The same image, known by one more name; `manifest` is what a registry has under it."""
        digests = {*self.repo_digests, *([f"{reference.name}@{manifest}"] if manifest else [])}
        tags = {*self.repo_tags, str(reference)} if not reference.digest else {*self.repo_tags}
        return replace(self, repo_tags=tuple(sorted(tags)), repo_digests=tuple(sorted(digests)))

    def to_json(self) -> dict[str, Any]:
        """The form of the records; `pinned` is a setting and not kept."""
        return {
            "repo_tags": list(self.repo_tags),
            "repo_digests": list(self.repo_digests),
            "size": self.size,
            "config": dict(self.config),
            "layers": list(self.layers),
            "blobs": list(self.blobs),
            "created": self.created,
            "platform": self.platform,
        }

    @classmethod
    def from_json(cls, id: str, doc: Mapping[str, Any]) -> Image:
        """The inverse; raises KeyError, TypeError or ImageError for anything else."""
        return cls(
            id=id,
            repo_tags=tuple(doc["repo_tags"]),
            repo_digests=tuple(doc["repo_digests"]),
            size=int(doc["size"]),
            config=doc["config"],
            layers=tuple(Digest.parse(text) for text in doc["layers"]),
            blobs=tuple(Digest.parse(text) for text in doc["blobs"]),
            created=str(doc.get("created", "")),
            platform=str(doc.get("platform", "")),
        )
