"""The directories of specification files, and devices by name.

A file is read again when it has changed (mtime, size, inode), never because of a request alone. A device of a later
directory takes the place of one of the same name; two files of one directory that name it contradict each other, and
then nobody gets it. A file that cannot be used is logged once, and named to whoever misses a device.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cri.server.cdi.specs import Edits, Specification, read_specification
from cri.server.errors import InvalidRequest, NotFound

log = logging.getLogger("crid")

FILES_MAX = 1024
SUFFIXES = (".json", ".yaml", ".yml")
Mark = tuple[int, int, int]
_Read = tuple[Mark, Specification | str]


@dataclass(slots=True)
class _Directory:
    """What one directory's files say: the file of each device, devices that two files claim, and broken files."""

    owners: dict[str, Specification] = field(default_factory=dict)
    disputed: dict[str, list[str]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


class Registry:
    """Devices of this node. Its methods block on the directories' file systems; call them in a thread."""

    def __init__(self, directories: Sequence[Path]) -> None:
        """`directories`, the later ones winning; one that does not exist is empty."""
        self._directories = tuple(directories)
        self._read: dict[Path, dict[Path, _Read]] = {}

    def edits(self, names: Sequence[str]) -> list[Edits]:
        """The edits of devices, in order, each file's own before those of its first device.

        Raises NotFound for names that no file has, InvalidRequest for one that two files of a directory have.
        """
        directories = [self._look(directory) for directory in self._directories]
        found: list[Edits] = []
        used: set[str] = set()
        missing: list[str] = []
        for name in names:
            specification = _owner(directories, name)
            if specification is None:
                missing.append(name)
                continue
            if specification.path not in used:
                used.add(specification.path)
                found.append(specification.edits)
            found.append(specification.devices[name])
        if missing:
            raise NotFound(self._missing(missing, directories))
        return found

    def _missing(self, names: Sequence[str], directories: Sequence[_Directory]) -> str:
        places = ", ".join(map(str, self._directories)) or "nowhere (cdi_spec_dirs is empty)"
        text = f"CDI devices not found: {', '.join(names)}; searched the specification files in {places}"
        broken = [f"{path} ({why})" for directory in directories for path, why in directory.broken.items()]
        return text + (f"; files that could not be used: {', '.join(broken[:3])}" if broken else "")

    def _look(self, directory: Path) -> _Directory:
        known, result = self._read.get(directory, {}), _Directory()
        # What has gone is not kept: drivers write a file for each claim of a pod, under a name that never comes again.
        current = {path: _read_once(path, mark, known.get(path)) for path, mark in _files(directory)}
        self._read[directory] = current
        for path, (_, read) in current.items():
            if isinstance(read, str):
                result.broken[str(path)] = read
                continue
            for name in read.devices:
                if name in result.owners:
                    result.disputed.setdefault(name, [result.owners[name].path]).append(read.path)
                else:
                    result.owners[name] = read
        return result


def _read_once(path: Path, mark: Mark, known: _Read | None) -> _Read:
    """What a file says, or why it cannot be used; what is `known` of it holds until its mark changes."""
    if known is not None and known[0] == mark:
        return known
    try:
        return mark, read_specification(path)
    except (OSError, ValueError, RecursionError) as error:
        why = str(error)[:500] or type(error).__name__
        log.warning("CDI specification %s cannot be used: %s", path, why)
        return mark, why


def _owner(directories: Sequence[_Directory], name: str) -> Specification | None:
    """The file that a device is from, of the last directory that has it."""
    for directory in reversed(directories):
        if name in directory.disputed:
            files = " and ".join(directory.disputed[name])
            raise InvalidRequest(f"CDI device {name} is described by {files}; remove one of the descriptions")
        if name in directory.owners:
            return directory.owners[name]
    return None


def _files(directory: Path) -> Iterator[tuple[Path, Mark]]:
    """Specification files by name, with what changes when they do."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIXES))
    except (FileNotFoundError, NotADirectoryError):
        return
    if len(names) > FILES_MAX:
        log.warning("CDI directory %s has %d files; %d are read", directory, len(names), FILES_MAX)
    for name in names[:FILES_MAX]:
        path = directory / name
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue
        yield path, (status.st_mtime_ns, status.st_size, status.st_ino)
