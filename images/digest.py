"""Digests: the names of content, which are also names of files here and therefore never trusted as text.

OCI image-spec, descriptor.md, "Digests". A Digest that exists is well-formed: the algorithm is known, the hex part
has exactly its length, so it can neither hold a slash nor name another file (CVE-2024-3727 was such a text).
"""

from __future__ import annotations

import hashlib
import re

from images.errors import InvalidDigest

HEX_LENGTH = {"sha256": 64, "sha512": 128}
SHOWN = 80
_HEX = re.compile(r"[0-9a-f]+")


class Digest(str):
    """`algorithm:hex`; a str, so that it is itself in JSON, in messages and as a key. Made by parse() and of()."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Digest:
        """Check a text from outside; raises InvalidDigest."""
        if not isinstance(text, str):
            raise InvalidDigest(f"{str(text)[:SHOWN]!r} is not a digest: want a string")
        algorithm, _, digits = text.partition(":")
        length = HEX_LENGTH.get(algorithm)
        if length is None:
            raise InvalidDigest(f"{text[:SHOWN]!r} is not a digest: want {' or '.join(HEX_LENGTH)}:HEX")
        if len(digits) != length or not _HEX.fullmatch(digits):
            raise InvalidDigest(f"{text[:SHOWN]!r} is not a digest: want {length} lower-case hex digits")
        return cls(text)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The sha256 digest of some bytes."""
        return cls(f"sha256:{hashlib.sha256(data).hexdigest()}")

    @property
    def algorithm(self) -> str:
        """`sha256` or `sha512`."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The hex part, safe as a file name."""
        return self.partition(":")[2]

    def hasher(self) -> hashlib._Hash:
        """A new hash object of this algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def matches(self, hasher: hashlib._Hash) -> bool:
        """Whether what went through `hasher` is what this digest names."""
        return hasher.hexdigest() == self.hex


def chain_ids(diff_ids: list[Digest]) -> list[Digest]:
    """The identity of each layer together with everything below it, lowest first (image-spec, config.md, "ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
