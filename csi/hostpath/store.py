"""Volumes on disk: the directory tree is the database, and every step on it is one rename.

<data-dir>/                         0700
    volumes/<volume id>/
        volume.json                 what was asked for; version 1, unknown fields are kept
        data/                       the volume itself, 0777: pods reach it by bind mounts only
    volumes/.new-*, .old-*          half made, half removed: swept at start
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from csi.hostpath.binds import Place
from csi.hostpath.refusal import Refusal, invalid, log
from runtime.linux.files import read_limited, write_atomic
from runtime.linux.mounttable import mounts
from runtime.linux.trees import remove_tree

VERSION = 1
DOCUMENT_LIMIT = 64 << 10
#: An id is a file name here: no separators, no leading dot, no room for "..".
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
ID_LIMIT = 128


@dataclass(frozen=True, slots=True)
class Stored:
    """One volume. `capacity` in bytes is what was asked for: a directory does not enforce it."""

    id: str
    name: str
    capacity: int
    ephemeral: bool
    data: Path
    document: dict[str, Any] = field(repr=False)


def id_of(name: str) -> str:
    """The id of the volume that is called `name`: derived, so that a repeated CreateVolume cannot make a second one."""
    return f"hp-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def is_id(volume_id: str) -> bool:
    return len(volume_id) <= ID_LIMIT and ID.fullmatch(volume_id) is not None


class Store:
    """The volumes below one data directory; callers hold the volume's lock."""

    def __init__(self, data_dir: Path) -> None:
        """Make the directories and sweep what an earlier process left half done; raises OSError."""
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = data_dir.resolve() / "volumes"
        self.root.mkdir(mode=0o700, exist_ok=True)
        self.place = Place(self.root)
        self._sweep()

    def _sweep(self) -> None:
        for half in [*self.root.glob(".new-*"), *self.root.glob(".old-*")]:
            try:
                remove_tree(half)
            except OSError as error:  # it keeps no volume from being served, and the next start tries again
                log.warning("%s stays: %s", half, error)

    def get(self, volume_id: str) -> Stored | None:
        """The volume, or None for an id that is unknown or that no volume could have."""
        directory = self.root / volume_id
        if not is_id(volume_id) or not directory.is_dir():
            return None
        return self._read(directory)

    def all(self) -> Iterator[Stored]:
        """Every volume in the order of ids; one whose document cannot be read is logged and left out."""
        for directory in sorted(self.root.iterdir()):
            if is_id(directory.name):
                try:
                    yield self._read(directory)
                except Refusal as refusal:
                    log.warning("%s", refusal)

    def _read(self, directory: Path) -> Stored:
        path = directory / "volume.json"
        try:
            doc = json.loads(read_limited(path, DOCUMENT_LIMIT))
            return Stored(
                directory.name,
                str(doc["name"]),
                int(doc["capacity_bytes"]),
                doc["ephemeral"] is True,
                directory / "data",
                doc,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            words = (
                f"volume {directory.name}: {path} cannot be read ({error}); its data in {directory}/data is untouched"
            )
            raise Refusal(grpc.StatusCode.INTERNAL, f"{words}: restore or remove that directory") from error

    def create(self, volume_id: str, name: str, capacity: int, *, ephemeral: bool = False) -> Stored:
        """A new, empty volume: there whole or not at all."""
        if not is_id(volume_id):
            raise invalid(f"volume id {volume_id!r} has characters that no volume of this driver has")
        fresh = self.root / f".new-{secrets.token_hex(8)}"
        (fresh / "data").mkdir(mode=0o700, parents=True)
        (fresh / "data").chmod(0o777)
        document = {
            "version": VERSION,
            "name": name,
            "capacity_bytes": capacity,
            "ephemeral": ephemeral,
            "created_ns": time.time_ns(),
        }
        write_atomic(fresh / "volume.json", json.dumps(document, indent=1).encode())
        fresh.rename(self.root / volume_id)
        return Stored(volume_id, name, capacity, ephemeral, self.root / volume_id / "data", document)

    def resize(self, volume: Stored, capacity: int) -> None:
        """Remember another capacity."""
        document = {**volume.document, "capacity_bytes": capacity}
        write_atomic(volume.data.parent / "volume.json", json.dumps(document, indent=1).encode())

    def delete(self, volume: Stored) -> None:
        """Remove a volume with its data; raises Refusal while it is mounted anywhere."""
        place = Place(volume.data)
        used = [mount.point for mount in mounts() if place.shown_by(mount) or place.holds(mount)]
        if used:
            words = f"volume {volume.id} is still mounted at {', '.join(used[:5])}: unpublish and unstage it first"
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, words)
        old = self.root / f".old-{secrets.token_hex(8)}"
        os.rename(volume.data.parent, old)
        remove_tree(old)
