"""The CSI drivers that are on this node now, by name: what plugins_registry says, asked back from the driver itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from csi.client import CsiDriver, NodeInfo, PluginInfo
from nodeagent.plugins import PluginRefused

#: CSI spec, GetPluginInfoResponse.name; it becomes a directory's name.
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
#: Seconds to wait for a driver that is not there: after a start of the node it comes about when its first pod does.
PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class Registered:
    """One driver, by which socket it registered, and what it said then of this node and of itself."""

    socket: Path
    driver: CsiDriver
    node: NodeInfo
    capabilities: frozenset[str]

    def can(self, capability: str) -> bool:
        return capability in self.capabilities


class DriverMissing(Exception):
    """No driver of that name is registered."""


class Drivers:
    """The handler of CSIPlugin registrations; to be used within one event loop."""

    def __init__(self, registry: Path, *, work_timeout: float, patience: float = PATIENCE) -> None:
        self._registry = registry
        self._work_timeout = work_timeout
        self.patience = patience  # seconds
        self._known: dict[str, Registered] = {}
        self._changed = asyncio.Condition()
        self.on_registered: Callable[[str], None] = lambda name: None

    def names(self) -> list[str]:
        return sorted(self._known)

    async def get(self, name: str) -> Registered:
        """The driver, waiting a moment for it; raises DriverMissing."""
        try:
            async with asyncio.timeout(self.patience), self._changed:
                await self._changed.wait_for(lambda: name in self._known)
        except TimeoutError:
            there = f"registered are {', '.join(self.names())}" if self._known else "none is registered"
            raise DriverMissing(
                f"CSI driver {name} is not registered on this node ({there}): start it; it registers itself by a socket"
                f" in {self._registry}"
            ) from None
        return self._known[name]

    async def register(self, plugin: PluginInfo, socket: Path) -> None:
        """Ask the driver who it is and take it in; raises PluginRefused, or CsiError when it does not answer."""
        if not NAME.fullmatch(plugin.name):
            raise PluginRefused(f"{plugin.name[:80]!r} is no driver name: at most 63 letters, digits, dots and dashes")
        if not any(version.split(".")[0].removeprefix("v") == "1" for version in plugin.versions):
            raise PluginRefused(f"speaks CSI {', '.join(plugin.versions) or 'of no version'}; this agent speaks 1.x")
        driver = CsiDriver(Path(plugin.endpoint or socket), plugin.name, work_timeout=self._work_timeout)
        try:
            registered = await self._introduced(driver, plugin.name, socket)
        except BaseException:
            await driver.close()
            raise
        async with self._changed:
            # A predecessor is not closed but dropped: calls under way keep its channel until they have ended.
            self._known[plugin.name] = registered
            self._changed.notify_all()
        self.on_registered(plugin.name)

    async def _introduced(self, driver: CsiDriver, name: str, socket: Path) -> Registered:
        called = await driver.identity()
        if called != name:
            raise PluginRefused(f"the driver at {driver.socket} calls itself {called!r}, not {name!r}")
        return Registered(socket, driver, await driver.node_info(), await driver.node_capabilities())

    async def deregister(self, plugin: PluginInfo, socket: Path) -> None:
        """Forget the driver, unless it has registered by another socket since."""
        known = self._known.get(plugin.name)
        if known is not None and known.socket == socket:
            del self._known[plugin.name]

    async def close(self) -> None:
        for registered in self._known.values():
            await registered.driver.close()
        self._known.clear()
