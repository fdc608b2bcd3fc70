"""Plugins found by their sockets: plugins_registry is watched, and whoever appears there is asked who it is.

    socket appears -> GetInfo -> handler of its type says yes or no -> NotifyRegistrationStatus
    socket goes    -> the handler forgets the plugin
    another socket of the same name (the plugin was restarted) -> the same again

inotify tells at once; a look at the whole directory every RESCAN seconds catches what it missed, and asks those again
that did not answer. Each socket has a task of its own: one that hangs keeps no other from being registered. Source of
the rules: kubelet's pluginmanager, pluginregistration v1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from asyncinotify import Inotify, Mask

from csi.client import CsiError, PluginInfo, RegistrationClient

log = logging.getLogger(__name__)

RESCAN = 30.0
#: Seconds that start() waits for plugins which are there already; those that hang go on registering afterwards.
FIRST_WAIT = 5.0
_MASK = Mask.CREATE | Mask.MOVED_TO | Mask.DELETE | Mask.MOVED_FROM


class PluginRefused(Exception):
    """The plugin cannot be used; it is told the reason."""


class PluginHandler(Protocol):
    """Takes plugins of one type."""

    async def register(self, plugin: PluginInfo, socket: Path) -> None:
        """Raises PluginRefused; `socket` is the one that it registers with."""

    async def deregister(self, plugin: PluginInfo, socket: Path) -> None: ...


#: Inode and modification time (which, unlike the change time, a chmod leaves): a socket apart from its successor.
Identity = tuple[int, int]


@dataclass(slots=True)
class _Entry:
    """One socket. `plugin` is who was registered last through its name, which outlives a replacement of the socket."""

    identity: Identity
    plugin: PluginInfo | None = None
    current: bool = False
    complaint: str = ""
    task: asyncio.Task[None] | None = None


class PluginWatcher:
    """`handlers` by plugin type, such as CSIPlugin."""

    def __init__(self, directory: Path, handlers: Mapping[str, PluginHandler]) -> None:
        self._directory = directory
        self._handlers = handlers
        self._entries: dict[str, _Entry] = {}
        self._looking = asyncio.Lock()
        self._inotify: Inotify | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Watch, and register what is there. Raises OSError when the directory cannot be made or watched."""
        self._inotify = Inotify()
        await self._scan()
        if first := self._registrations():
            await asyncio.wait(first, timeout=FIRST_WAIT)
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._rescan())]

    async def close(self) -> None:
        tasks = [*self._tasks, *self._registrations()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._inotify is not None:
            self._inotify.close()

    def _registrations(self) -> set[asyncio.Task[None]]:
        return {entry.task for entry in self._entries.values() if entry.task is not None}

    async def _follow(self) -> None:
        assert self._inotify is not None
        async for event in self._inotify:
            if event.name is not None:
                async with self._looking:
                    await self._look(str(event.name))

    async def _rescan(self) -> None:
        while True:
            await asyncio.sleep(RESCAN)
            try:
                await self._scan()
            except OSError as error:
                log.error("plugins: %s cannot be watched: %s", self._directory, error)

    async def _scan(self) -> None:
        """Look at every name; a directory that somebody has removed is made and watched anew."""
        assert self._inotify is not None
        self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._inotify.add_watch(self._directory, _MASK)  # first, so that nothing falls between the two
        names = {path.name for path in self._directory.iterdir()}
        async with self._looking:
            for name in sorted(names | self._entries.keys()):
                await self._look(name)

    async def _look(self, name: str) -> None:
        """Bring what is known of one name in line with what is there; one look at a time."""
        identity = None if name.startswith(".") else _socket_identity(self._directory / name)
        entry = self._entries.get(name)
        if identity is None:
            if entry is not None:
                await self._forget(name, entry)
            return
        if entry is None:
            entry = self._entries[name] = _Entry(identity)
        elif entry.identity != identity:
            await _cancelled(entry.task)
            entry.identity, entry.current, entry.complaint = identity, False, ""
        elif entry.current or (entry.task is not None and not entry.task.done()):
            return
        entry.task = asyncio.create_task(self._register(name, entry), name=f"plugin {name}")

    async def _forget(self, name: str, entry: _Entry) -> None:
        del self._entries[name]
        await _cancelled(entry.task)
        if entry.plugin is not None:
            log.info("plugins: %s %s is gone", entry.plugin.type, entry.plugin.name)
            await self._handlers[entry.plugin.type].deregister(entry.plugin, self._directory / name)

    async def _register(self, name: str, entry: _Entry) -> None:
        socket = self._directory / name
        try:
            client = RegistrationClient(socket)
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(client.close)
                plugin = await client.info()
                refusal = await self._introduce(plugin, socket)
                if not refusal:
                    await self._accept(entry, plugin, socket)
                await client.notify(refusal)
        except CsiError as error:
            return self._complain(entry, str(error))
        if refusal:
            self._complain(entry, f"{plugin.type} {plugin.name}: {refusal}")

    async def _accept(self, entry: _Entry, plugin: PluginInfo, socket: Path) -> None:
        before, entry.plugin, entry.current = entry.plugin, plugin, True
        log.info("plugins: %s %s registered at %s", plugin.type, plugin.name, socket)
        if before is not None and (before.type, before.name) != (plugin.type, plugin.name):
            await self._handlers[before.type].deregister(before, socket)

    async def _introduce(self, plugin: PluginInfo, socket: Path) -> str:
        """Why the plugin is refused; empty when it is registered."""
        handler = self._handlers.get(plugin.type)
        if handler is None:
            return f"type {plugin.type!r} is not served by this agent, only {', '.join(self._handlers)}"
        try:
            await handler.register(plugin, socket)
        except PluginRefused as refused:
            return str(refused)
        return ""

    def _complain(self, entry: _Entry, words: str) -> None:
        """Once per socket and reason: every rescan asks again."""
        if words != entry.complaint:
            log.warning("plugins: %s; asked again every %g s", words, RESCAN)
        entry.complaint = words


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait({task})


def _socket_identity(path: Path) -> Identity | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return (status.st_ino, status.st_mtime_ns) if stat.S_ISSOCK(status.st_mode) else None
