"""Runs the plugins of a network in order, as SPEC.md, section 3, says. Blocking: crid runs a chain in a thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cni import call as commands
from cni import versions
from cni.attachment import Attachment
from cni.call import Call, derive, derive_for_gc
from cni.conf import NetworkConf, PluginConf
from cni.errors import CniError, PluginFailed
from cni.plugin import Site
from cni.result import Result
from cni.runner import PluginRunner


@dataclass(frozen=True, slots=True)
class Chain:
    """A network's plugins, how to run them, and the directories with those that are programs."""

    network: NetworkConf
    runner: PluginRunner
    path: tuple[str, ...]

    def is_builtin(self) -> bool:
        """Whether none of its plugins is a program."""
        return all(
            self.runner.is_builtin(kind, plugin.doc)
            for plugin in self.network.plugins
            for kind in (plugin.type, (plugin.doc.get("ipam") or {}).get("type"))
            if kind
        )

    def require(self) -> None:
        """Raise CniError when one of its plugins is not there."""
        for kind in self.network.programs:
            self.runner.require(kind, self._plain_call(commands.STATUS, {}))

    def add(self, attachment: Attachment, site: Site) -> Result:
        """ADD of each plugin, in order, with the result of the one before; raises CniError at the first failure."""
        result: Result | None = None
        for plugin in self.network.plugins:
            config = derive(self.network, plugin, result, attachment.capability_args)
            result = self.runner.run(plugin.type, attachment.call(commands.ADD, config, self.path), site)
        assert result is not None
        return result

    def delete(self, attachment: Attachment, site: Site, previous: Result | None) -> None:
        """DEL of each plugin, in reverse order, with the final result of ADD; raises CniError at the first failure.

        Going on after a failure could free an address that a rule of the failed plugin still leads to.
        """
        if not versions.at_least(self.network.version, "0.4.0"):
            previous = None
        for plugin in reversed(self.network.plugins):
            config = derive(self.network, plugin, previous, attachment.capability_args)
            self.runner.run(plugin.type, attachment.call(commands.DEL, config, self.path), site)

    def check(self, attachment: Attachment, site: Site, previous: Result | None) -> None:
        """CHECK of each plugin, in order; nothing when the network says disableCheck."""
        if not versions.at_least(self.network.version, "0.4.0"):
            raise CniError(
                f"network {self.network.name}: CNI {self.network.version} has no CHECK", "it came with 0.4.0"
            )
        if self.network.disable_check:
            return
        if previous is None:
            raise CniError(f"network {self.network.name}: no result of ADD is kept for {attachment.key}")
        for plugin in self.network.plugins:
            config = derive(self.network, plugin, previous, attachment.capability_args)
            self.runner.run(plugin.type, attachment.call(commands.CHECK, config, self.path), site)

    def mend(self, attachment: Attachment, site: Site, result: Result) -> None:
        """Have each built-in plugin, in order, mend what it has on the host for the pod; raises CniError, OSError."""
        for plugin in self.network.plugins:
            config = derive(self.network, plugin, result, attachment.capability_args)
            call = attachment.call(commands.CHECK, config, self.path)
            if (builtin := self.runner.builtin(plugin.type, call)) is not None:
                builtin.mend(call, site)

    def status(self, site: Site) -> None:
        """Every plugin must be there, and say that it is ready if the version has STATUS; raises CniError."""
        self.require()
        if versions.at_least(self.network.version, "1.1.0"):
            for plugin in self.network.plugins:
                config = derive(self.network, plugin, None, {})
                self.runner.run(plugin.type, self._plain_call(commands.STATUS, config), site)

    def gc(self, site: Site, valid: set[tuple[str, str]]) -> None:
        """GC of every plugin, whatever the others say; raises CniError with all that failed."""
        if self.network.disable_gc or not versions.at_least(self.network.version, "1.1.0"):
            return
        listed = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in sorted(valid)]
        failed = [error for plugin in self.network.plugins if (error := self._gc_one(plugin, site, listed))]
        if failed:
            raise PluginFailed(f"GC of network {self.network.name} failed", "; ".join(map(str, failed)))

    def _gc_one(self, plugin: PluginConf, site: Site, listed: list[dict[str, str]]) -> CniError | None:
        config = derive_for_gc(self.network, plugin, listed)
        try:
            self.runner.run(plugin.type, self._plain_call(commands.GC, config), site)
        except CniError as error:
            return error
        return None

    def _plain_call(self, command: str, config: dict[str, Any]) -> Call:
        return Call(command=command, config=config, path=self.path)
