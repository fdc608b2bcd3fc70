"""Image references: the grammar of the distribution project, and docker.io's defaults for short ones.

    reference = [domain "/"] path [":" tag] ["@" digest]

https://github.com/distribution/reference, reference.go. A reference that exists is in normal form: it has a domain,
and a tag or a digest; "busybox" is "docker.io/library/busybox:latest".
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from images.digest import Digest
from images.errors import InvalidDigest, InvalidReference

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL = "library"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255
TEXT_LIMIT = 1024  # a name, a tag and a sha512 digest fit twice

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<ip6>[0-9a-fA-F:]+)\])(?::(?P<port>[0-9]{{1,5}}))?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_BARE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference in normal form; `digest` wins where both it and a tag were given, and the tag is dropped then."""

    domain: str
    path: str
    tag: str
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """From what a user or a manifest says; raises InvalidReference with the part that is wrong."""
        if not text or len(text) > TEXT_LIMIT:
            raise _invalid(text, "empty" if not text else f"longer than {TEXT_LIMIT} characters")
        if _BARE_ID.fullmatch(text):
            raise _invalid(text, "64 hex digits are an image id, not a name")
        rest, at, digest_text = text.partition("@")
        name, tag = _split_tag(rest)
        domain, path = _split_domain(name)
        _check_name(text, domain, path)
        if tag is not None and not _TAG.fullmatch(tag):
            raise _invalid(text, f"the tag {tag!r} has a character that no tag may have, or more than 128")
        if not at:
            return cls(domain, path, tag or DEFAULT_TAG)
        try:
            return cls(domain, path, "", Digest.parse(digest_text))
        except InvalidDigest as error:
            raise _invalid(text, str(error)) from error

    @property
    def name(self) -> str:
        """Domain and path, without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest, or else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def _split_tag(text: str) -> tuple[str, str | None]:
    """A colon before a slash belongs to a port."""
    head, colon, tag = text.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (text, None)


def _split_domain(name: str) -> tuple[str, str]:
    """The first component is a domain only if it cannot be a Docker Hub user: a dot, a port, localhost, upper case."""
    first, slash, rest = name.partition("/")
    is_domain = any(c in first for c in ".:[") or first == "localhost" or first != first.lower()
    if not slash or not is_domain:
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = DEFAULT_DOMAIN if first == LEGACY_DOMAIN else first, rest
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"{OFFICIAL}/{path}"
    return domain, path


def _check_name(text: str, domain: str, path: str) -> None:
    found = _DOMAIN.fullmatch(domain)
    if not found or int(found["port"] or 0) > 65535 or not _is_ip6(found["ip6"]):
        raise _invalid(text, f"{domain!r} is no host or host:port")
    if not _PATH.fullmatch(path):
        lower = "; repository names are lower case" if path != path.lower() else ""
        raise _invalid(text, f"{path!r} is no repository name{lower}")
    if len(domain) + 1 + len(path) > NAME_LIMIT:
        raise _invalid(text, f"the name is longer than {NAME_LIMIT} characters")


def _is_ip6(text: str | None) -> bool:
    if text is None:
        return True
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _invalid(text: str, why: str) -> InvalidReference:
    return InvalidReference(f"{text[:NAME_LIMIT]!r} is not an image reference: {why}")
