"""Platforms: which of an index's images runs on this machine.

The names are Go's (OCI image-spec, image-index.md, "platform"); machine names are those of uname(2).
"""

from __future__ import annotations

import platform as machine
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "riscv64": ("riscv64", ""),
    "s390x": ("s390x", ""),
    "loongarch64": ("loong64", ""),
}
#: What may run where, the best first; the empty variant stands for the baseline.
VARIANTS = {
    ("amd64", ""): ("", "v1"),
    ("arm64", "v8"): ("v8", ""),
    ("arm", "v7"): ("v7", "", "v6", "v5"),
    ("arm", "v6"): ("v6", "", "v5"),
}


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, an architecture and its variant, as image configs and indexes write them."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def host(cls) -> Platform:
        """This machine."""
        name = machine.machine()
        return cls("linux", *ARCHITECTURES.get(name, (name, "")))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """From `os/architecture[/variant]`; raises ValueError."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(f"{text!r} is not os/architecture[/variant]")
        return cls(*parts)

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Platform:
        """From an index entry's `platform` or from an image config."""
        return cls(*(str(doc.get(key) or "") for key in ("os", "architecture", "variant")))

    def to_json(self) -> dict[str, str]:
        """The form of an image config."""
        variant = {"variant": self.variant} if self.variant else {}
        return {"os": self.os, "architecture": self.architecture, **variant}

    def rank(self, other: Platform) -> int | None:
        """How well an image for `other` fits here: 0 is best, None is not at all."""
        if (other.os, other.architecture) != (self.os, self.architecture):
            return None
        fitting = VARIANTS.get((self.architecture, self.variant), (self.variant, ""))
        return fitting.index(other.variant) if other.variant in fitting else None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))
