"""The directory of network configurations: the first valid file, by name, is the network of the pods.

/etc/cni/net.d belongs to the administrator and to the installers of network plugins, which write there while we run. So
it is looked at again whenever a network is needed, which costs a few stat(2) calls while nothing changes; and a
file that cannot be used is reported and passed over, it never hides a good one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cni.conf import NetworkConf, load_network
from cni.errors import CniError

SUFFIXES: Final = (".conf", ".conflist", ".json")


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that cannot be used."""

    path: str
    reason: str

    def __str__(self) -> str:
        return self.reason if self.reason.startswith(self.path) else f"{self.path}: {self.reason}"


class ConfDir:
    """What a directory holds, read again when it has changed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.networks: tuple[NetworkConf, ...] = ()
        self.problems: tuple[Problem, ...] = ()
        self._seen: object = None

    def refresh(self) -> bool:
        """Look again; True when something has changed since the last look."""
        seen = self._fingerprint()
        if seen == self._seen:
            return False
        self._seen = seen
        self._load()
        return True

    def _fingerprint(self) -> object:
        """Name, inode, size and times of every file that could matter, those of drop-in directories included."""
        found: list[tuple[str, int, int, int, int]] = []
        pending = [str(self.directory)]
        for directory in pending:  # grows while it is walked, by one level only
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.name.endswith(SUFFIXES):
                            found.append(_stamp(entry))
                        elif directory == pending[0] and entry.is_dir():
                            pending.append(entry.path)
            except (FileNotFoundError, NotADirectoryError):
                continue
        return tuple(sorted(found))

    def _load(self) -> None:
        networks: list[NetworkConf] = []
        problems: list[Problem] = []
        for path in self._files(problems):
            try:
                networks.append(load_network(path))
            except CniError as error:
                problems.append(Problem(str(path), str(error)))
            except OSError as error:
                problems.append(Problem(str(path), error.strerror or str(error)))
        self.networks, self.problems = tuple(networks), tuple(problems)

    def _files(self, problems: list[Problem]) -> list[Path]:
        try:
            return sorted(path for path in self.directory.iterdir() if path.suffix in SUFFIXES and not path.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            problems.append(Problem(str(self.directory), error.strerror or str(error)))
            return []


def _stamp(entry: os.DirEntry[str]) -> tuple[str, int, int, int, int]:
    try:
        info = entry.stat()
    except OSError:  # removed since, or a dangling link: the load will say so
        return entry.path, 0, 0, 0, 0
    return entry.path, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
