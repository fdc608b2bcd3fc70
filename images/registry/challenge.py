"""WWW-Authenticate: what a registry wants to be shown (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

HEADER_LIMIT = 8192
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PART = re.compile(
    rf"""[\s,]*(?:(?P<key>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_TOKEN}))|(?P<scheme>{_TOKEN}))"""
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme, in lower case, with its parameters; their names are in lower case too."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Every challenge in the headers of this name; what cannot be parsed ends its header."""
    challenges: list[Challenge] = []
    for header in headers:
        at = 0
        text = header[:HEADER_LIMIT]
        while found := _PART.match(text, at):
            at = found.end()
            if found["scheme"]:
                challenges.append(Challenge(found["scheme"].lower()))
            elif challenges:
                value = found["plain"] if found["quoted"] is None else re.sub(r"\\(.)", r"\1", found["quoted"])
                challenges[-1].parameters[found["key"].lower()] = value
    return challenges
