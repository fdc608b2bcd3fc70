"""The plugins that are connected, in the order of their indices; those that come, and those that we start.

A plugin comes into the list at one moment: what has been told of until then it hears of by Synchronize, everything
later as an event, and nothing twice or never. Events wait for the end of its Synchronize (Plugin keeps the turns).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from cri.server.nri.config import NriConfig
from cri.server.nri.errors import PluginLost, PluginRefused
from cri.server.nri.launching import Launched, installed_plugins, launch
from cri.server.nri.plugin import Plugin, Terms, UpdateContainers
from runtime.linux.exclusive import make_room

log = logging.getLogger("crid")

PLUGINS_MAX: Final = 64
BACKLOG: Final = 64

#: Tells a plugin what there is; must not wait before it has taken the snapshot and the plugin's turn.
Synchronize = Callable[[Plugin], Awaitable[None]]


class Plugins:
    """Listens, launches, and holds what is connected."""

    def __init__(self, config: NriConfig, terms: Terms, update: UpdateContainers, synchronize: Synchronize) -> None:
        self._config = config
        self._terms = terms
        self._update = update
        self._synchronize = synchronize
        self._server: asyncio.Server | None = None
        self._coming: set[asyncio.Task[None]] = set()
        self._launched: list[Launched] = []
        self.connected: list[Plugin] = []
        #: Why nobody can connect, if so.
        self.trouble = ""

    async def start(self) -> None:
        """Start what is installed, wait for it, then listen. A plugin that fails is logged; the node starts without it.

        Raises OSError when the directory of plugins cannot be read, ConfigError for a file in it that is no plugin.
        """
        found = installed_plugins(self._config.plugin_path, self._config.plugin_config_path)
        await asyncio.gather(*(self._launch(*each) for each in found))
        if not self._config.disable_connections:
            await self._listen()

    async def _launch(self, path: Path, index: str, base: str, config: str) -> None:
        try:
            launched, ours = launch(path, index, base)
        except OSError as error:
            log.error("NRI plugin %s cannot be started: %s", path, error)
            return
        self._launched.append(launched)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        await self._welcome(reader, writer, index=index, base=base, config=config)

    async def _listen(self) -> None:
        path = self._config.socket
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_room(path, "set [nri] socket to a path of this crid's own")
            former = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._arrived, path, backlog=BACKLOG)
            finally:
                os.umask(former)
        except OSError as error:
            self.trouble = str(error)
            log.error("NRI plugins cannot connect: %s", error)
        else:
            log.info("NRI plugins can connect to %s", path)

    def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._coming) + len(self.connected) >= PLUGINS_MAX:
            log.error("an NRI plugin is turned away: %d are connected already", PLUGINS_MAX)
            writer.transport.abort()
            return
        task = asyncio.create_task(self._welcome(reader, writer))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **identity: Any) -> None:
        """From a connection to a member of the list; what goes wrong costs this plugin only."""
        plugin = Plugin(reader, writer, self._terms, self._update, **identity)
        try:
            await plugin.begin()
            # No await between this and the snapshot that _synchronize takes: see above.
            self.connected.append(plugin)
            self.connected.sort(key=lambda each: each.index)
            plugin.connection.ended.add_done_callback(lambda ended: self._left(plugin, ended.result()))
            await self._synchronize(plugin)
            log.info("NRI plugin %s is connected and synchronized", plugin.name)
        except (PluginLost, PluginRefused) as error:
            log.error("NRI plugin %s is not accepted: %s", plugin.name, error)
            await plugin.close(str(error))
        except Exception:
            log.exception("NRI plugin %s is not accepted", plugin.name)
            await plugin.close("crid failed")
        except asyncio.CancelledError:
            await plugin.close("crid stops")
            raise

    def _left(self, plugin: Plugin, why: str) -> None:
        self.connected.remove(plugin)
        log.warning("NRI plugin %s is gone: %s", plugin.name, why)

    async def close(self) -> None:
        """Disconnect all, and end those that we started."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                self._config.socket.unlink()
        for task in self._coming:
            task.cancel()
        await asyncio.gather(*self._coming, return_exceptions=True)
        await asyncio.gather(*(plugin.close("crid stops") for plugin in list(self.connected)))
        await asyncio.gather(*(launched.end() for launched in self._launched))
