"""Seccomp profiles by name, as files of compiled BPF that the runtime's children can install.

    <directory>/<sha256 of the resolved filter>.bpf

A filter is compiled once for each set of capabilities that makes a difference to it (some 60 ms) and then found by
its content: a changed profile is another file, and the runtime below never parses one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cri.server.errors import InvalidRequest, NotFound
from cri.server.seccomp.bpf import compile_filter
from cri.server.seccomp.default import BY_CAPABILITY, default_profile
from cri.server.seccomp.oci import as_oci
from cri.server.seccomp.rules import resolve
from runtime.linux.files import read_limited, write_atomic

PROFILE_LIMIT = 1 << 20
#: Changes when the compiler's output for the same input does.
COMPILER = 1
T = TypeVar("T")
RELEVANT_CAPABILITIES = frozenset(capability for capability, _ in BY_CAPABILITY)


class Profiles:
    """Compiled profiles in a directory (0700) of their own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._defaults: dict[frozenset[str], str] = {}

    async def default(self, capabilities: frozenset[str]) -> str:
        """The file of the RuntimeDefault profile for a container's bounding set."""
        relevant = capabilities & RELEVANT_CAPABILITIES
        path = self._defaults.get(relevant)
        if path is None:
            path = await asyncio.to_thread(self.filter_path, default_profile(), relevant)
            self._defaults[relevant] = path
        return path

    async def default_document(self, capabilities: frozenset[str]) -> dict[str, Any]:
        """The same as OCI `linux.seccomp`, for a runtime that compiles it itself."""
        return as_oci(resolve(default_profile(), capabilities & RELEVANT_CAPABILITIES))

    async def localhost_document(self, reference: str, capabilities: frozenset[str]) -> dict[str, Any]:
        """A profile on this node as OCI `linux.seccomp`; as localhost()."""
        return await asyncio.to_thread(_named, reference, lambda profile: as_oci(resolve(profile, capabilities)))

    async def localhost(self, reference: str, capabilities: frozenset[str]) -> str:
        """The file of a profile on this node; `reference` is its absolute path, as the CRI has it.

        Read every time, because its owner may change it. Raises InvalidRequest, NotFound.
        """
        return await asyncio.to_thread(_named, reference, lambda profile: self.filter_path(profile, capabilities))

    def filter_path(self, profile: Mapping[str, Any], capabilities: frozenset[str]) -> str:
        """The file of any profile document, compiled now unless it has been before. Blocks; raises InvalidRequest."""
        resolved = resolve(profile, capabilities)
        content = json.dumps([COMPILER, resolved], separators=(",", ":"))
        path = self._directory / f"{hashlib.sha256(content.encode()).hexdigest()}.bpf"
        if not path.exists():
            write_atomic(path, compile_filter(resolved))
        return str(path)


def _named(reference: str, use: Callable[[dict[str, Any]], T]) -> T:
    """What `use` makes of the profile at an absolute path; its errors name the file. Blocks."""
    if not reference.startswith("/") or "\0" in reference:
        raise InvalidRequest(f"seccomp localhost_ref {reference[:200]!r} is no absolute path")
    try:
        profile = json.loads(read_limited(reference, PROFILE_LIMIT))
    except FileNotFoundError:
        raise NotFound(f"seccomp profile {reference} does not exist on this node; put it there first") from None
    except OSError as error:
        raise InvalidRequest(f"seccomp profile {reference} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"seccomp profile {reference}: not JSON: {error}") from error
    if not isinstance(profile, dict):
        raise InvalidRequest(f"seccomp profile {reference}: not a JSON object")
    try:
        return use(profile)
    except InvalidRequest as error:
        error.add_note(f"in {reference}")
        raise
