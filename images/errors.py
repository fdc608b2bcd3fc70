"""What can go wrong with an image, one exception per kind of remedy; all of them are ImageError.

A message says what failed, for which image or blob, why, and what to do where that is not obvious. The caller maps
kinds to status codes of its own; nothing of an HTTP library, sqlite or tar parser gets past this package.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from runtime.linux.database import DatabaseFull

#: What the kernel says when a filesystem, or a quota on it, is full.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class ImageError(Exception):
    """Anything about images; the subclasses tell the kind."""

    #: Whose work it ended (images.transfer.Transfer): others who shared that work may do better.
    ended: object | None = None


class InvalidReference(ImageError):
    """The text is no image reference (distribution's reference grammar)."""


class InvalidDigest(ImageError):
    """The text is no digest of an algorithm that we know."""


class ImageNotFound(ImageError):
    """No such image here, or the registry knows no such name, tag or digest."""


class RegistryError(ImageError):
    """The registry, or the way to it, failed: `status` is the HTTP status, 0 when there was no answer."""

    def __init__(self, message: str, host: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.host = host
        self.status = status


class Unauthorized(RegistryError):
    """The registry wants other credentials than it was given (401, 403, or a token that was refused)."""


class InvalidConfiguration(ImageError):
    """A hosts.toml of the registries directory cannot be used."""


class DigestMismatch(ImageError):
    """Bytes that hash to something else than the digest that named them, or have another size than promised."""


class MalformedImage(ImageError):
    """A manifest, index, config or layer that does not follow its specification."""


class UnsupportedImage(ImageError):
    """A well-formed image that cannot run here: other platform, encrypted, an artifact, schema 1."""


class UnsafeLayer(ImageError):
    """A layer that tries to leave its root or to reach something that no layer may hold."""


class TooLarge(ImageError):
    """Over a limit: size of a document, number of entries, bytes unpacked, compression ratio, depth."""


class DiskFull(ImageError):
    """No space, inodes or quota left under the image store."""


@contextlib.contextmanager
def disk_full_explained(doing: str) -> Iterator[None]:
    """Turn the kernel's "no space", and the database's, into DiskFull; every other OSError stays what it is."""
    try:
        yield
    except DatabaseFull as error:
        raise DiskFull(f"no space left while {doing}: {error}") from error
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(f"no space left while {doing}: free some, or remove unused images") from error
        raise
