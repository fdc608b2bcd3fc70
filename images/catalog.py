"""The images that are here, by id and by name; kept in the records, answered from memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import replace

from images.errors import ImageError, ImageNotFound, InvalidReference
from images.image import Image
from images.reference import Reference
from runtime.linux.records import Records

log = logging.getLogger("images")

KIND = "image"
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
#: Fewer digits of an id are no id: "cafe" and "beef" are names.
_SHORT_ID = re.compile(r"(?:sha256:)?([0-9a-f]{5,63})")


class Catalog:
    """Not thread-safe: for the event loop. A change is in the records when the call returns."""

    def __init__(self, records: Records, pinned: Iterable[str]) -> None:
        self._records = records
        self._pinned = frozenset(str(Reference.parse(name)) for name in pinned)
        self._images: dict[str, Image] = {}

    def load(self) -> None:
        """Read the records; one that cannot be understood is as good as no image."""
        self._images = {}
        for id, doc in self._records.all(KIND).items():
            try:
                self._images[id] = Image.from_json(id, doc)
            except (KeyError, TypeError, ValueError, ImageError) as error:
                log.warning("the record of image %s cannot be read (%r): pull it again", id, error)
                self._records.delete(KIND, id)

    def all(self) -> list[Image]:
        """Every image, in the order of their ids."""
        return [self._marked(self._images[id]) for id in sorted(self._images)]

    def find(self, name: str) -> Image | None:
        """By id, by name, or by the first digits of an id if they fit one image only; None when there is none."""
        if found := _ID.fullmatch(name):
            image = self._images.get(f"sha256:{found[1]}")
            return self._marked(image) if image else None
        return self._by_name(name) or self._by_short_id(name)

    def known(self, name: str) -> Image:
        """As find(); raises ImageNotFound."""
        image = self.find(name)
        if image is None:
            raise ImageNotFound(f"image {name[:200]!r} is not here: pull it first")
        return image

    def _by_name(self, name: str) -> Image | None:
        try:
            full = str(Reference.parse(name))
        except InvalidReference:
            return None
        for image in self._images.values():
            if full in image.repo_tags or full in image.repo_digests:
                return self._marked(image)
        return None

    def _by_short_id(self, name: str) -> Image | None:
        found = _SHORT_ID.fullmatch(name)
        fitting = [image for id, image in self._images.items() if found and id.startswith(f"sha256:{found[1]}")]
        return self._marked(fitting[0]) if len(fitting) == 1 else None

    def add(self, image: Image) -> Image:
        """Store an image, or more names of one that is here; a tag that another one had moves to this one."""
        moved = set(image.repo_tags)
        known = self._images.get(image.id)
        if known is not None:
            image = replace(
                image,
                repo_tags=tuple(sorted({*known.repo_tags, *image.repo_tags})),
                repo_digests=tuple(sorted({*known.repo_digests, *image.repo_digests})),
                blobs=tuple(sorted({*known.blobs, *image.blobs})),
            )
        for other in list(self._images.values()):
            if other.id != image.id and not moved.isdisjoint(other.repo_tags):
                self._put(replace(other, repo_tags=tuple(tag for tag in other.repo_tags if tag not in moved)))
        self._put(image)
        return self._marked(image)

    def _put(self, image: Image) -> None:
        self._records.put(KIND, image.id, image.to_json())
        self._images[image.id] = image

    def remove(self, id: str) -> None:
        """Forget an image under all its names; an unknown one is no error."""
        self._records.delete(KIND, id)
        self._images.pop(id, None)

    def _marked(self, image: Image) -> Image:
        pinned = not self._pinned.isdisjoint(image.repo_tags)
        return replace(image, pinned=pinned) if pinned else image
