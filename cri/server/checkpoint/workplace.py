"""Directories on the way between a container and an archive, below ROOT/checkpoints, and what is left of them.

    <container id>/   a checkpoint that waits for the start of the container it was created from: images/, work/
    dump-<token>/     an archive's content while it is being made
    a partial archive, in the directory that the client named

Each has an entry in the ledger before it is there, so a crash leaves nothing: what belongs to no container when crid
starts is removed then (cri.server.tidying).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from cri.server.errors import Exhausted
from cri.server.specs.sources import look
from runtime.linux.ledger import Effect
from runtime.linux.trees import remove_tree

if TYPE_CHECKING:
    from cri.server.daemon import Daemon

log = logging.getLogger("crid")

HOLDER = "checkpoint:"
IMAGES, WORK = "images", "work"


def place_of(daemon: Daemon, name: str) -> Path:
    """Where one is; it need not exist."""
    return daemon.config.root / "checkpoints" / name


def waits(daemon: Daemon, container_id: str) -> bool:
    """Whether a container was created from a checkpoint and has not been started."""
    return place_of(daemon, container_id).is_dir()


@contextlib.asynccontextmanager
async def scratch(daemon: Daemon) -> AsyncIterator[Path]:
    """A directory with images/ and work/ that is gone after the block."""
    name = f"dump-{secrets.token_hex(8)}"
    try:
        yield await make(daemon, name)
    finally:
        await asyncio.shield(discard(daemon, name))


async def make(daemon: Daemon, name: str) -> Path:
    """Make a directory with images/ and work/; discard() is the caller's."""
    path = place_of(daemon, name)
    daemon.ledger.record(Effect("dir", str(path), f"{HOLDER}{name}"))

    def work() -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        for each in (path, path / IMAGES, path / WORK):
            each.mkdir(mode=0o700)

    await asyncio.to_thread(work)
    return path


async def discard(daemon: Daemon, name: str) -> None:
    """Remove a directory; one that is not there is no error."""
    path = place_of(daemon, name)
    if not path.exists():
        return
    await asyncio.to_thread(remove_tree, path)
    daemon.ledger.strike(("dir", str(path)))


@contextlib.asynccontextmanager
async def partial(daemon: Daemon, path: str) -> AsyncIterator[None]:
    """A file that another program may see is in the ledger until it is whole or removed."""
    effect = Effect("dir", path, f"{HOLDER}{os.path.basename(path)}")
    daemon.ledger.record(effect)
    try:
        yield
    finally:
        await asyncio.shield(remove_leftover(daemon, effect))


def leftovers(daemon: Daemon) -> list[Effect]:
    """Before the first client: what no container waits for, also where it was started and crid ended before this."""
    waiting = {container.id for container in daemon.store.containers if not container.started_at} | daemon.store.unread
    used = {f"{HOLDER}{id}" for id in waiting}
    entries = daemon.ledger.entries("dir")
    return [entry for entry in entries if entry.holder.startswith(HOLDER) and entry.holder not in used]


async def remove_leftover(daemon: Daemon, entry: Effect) -> None:
    """Raises nothing: it may be in a client's directory, whose file system hangs or can be written to no more."""
    try:
        await look(os.path.dirname(entry.key), _remove, entry.key)
    except (Exhausted, OSError):
        log.exception("%s, left by a checkpoint, cannot be removed; the next start tries again", entry.key)
    else:
        daemon.ledger.strike(entry)


def _remove(path: str) -> None:
    with contextlib.suppress(NotADirectoryError):  # a file, or nothing, its directory being a file by now
        remove_tree(path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        os.unlink(path)
