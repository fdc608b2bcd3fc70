"""Chooses how a plugin is run: built in, or as a program, which may be the better one for the options in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cni.call import Call
from cni.errors import CniError, PluginFailed
from cni.external import find_program, run_program
from cni.plugin import Plugin, Site, dispatch
from cni.result import Result

#: Of one plugin, for one command; the kubelet gives up on a whole pod after four minutes.
DEFAULT_TIMEOUT_S: Final = 60.0


class PluginRunner:
    """Runs plugins by type. Without built-in ones it runs programs only, as the specification has it."""

    def __init__(self, builtin: Mapping[str, Plugin] | None = None, *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        self._builtin = builtin or {}
        self._timeout = timeout

    def load(self) -> None:
        """Have every built-in plugin imported. Blocks."""
        for kind in self._builtin:
            self._builtin[kind]

    def run(self, kind: str, call: Call, site: Site) -> Result | None:
        """The result of ADD, None of every other command; raises CniError."""
        plugin = self.builtin(kind, call)
        if plugin is None:
            site.journal.commit()
            return run_program(kind, call, timeout=self._timeout)
        try:
            return dispatch(plugin, call, site)
        except OSError as error:
            raise PluginFailed(
                f"CNI plugin {kind!r}: {call.command} on network {call.network!r} for {call.attachment}: "
                f"{error.strerror or error}"
            ) from error

    def builtin(self, kind: str, call: Call) -> Plugin | None:
        """The built-in plugin that serves a call, or None when a program does: for an option that ours lacks."""
        plugin = self._builtin.get(kind)
        if plugin is None or plugin.missing_option(call.config) is None:
            return plugin
        return None if is_installed(kind, call) else plugin

    def is_builtin(self, kind: str, config: Mapping[str, Any]) -> bool:
        """Whether a plugin is built in, with every option that its configuration uses."""
        plugin = self._builtin.get(kind)
        return plugin is not None and plugin.missing_option(config) is None

    def require(self, kind: str, call: Call) -> None:
        """Raise CniError when a plugin can neither be served here nor found as a program."""
        if self.builtin(kind, call) is None:
            find_program(kind, call.path)


def is_installed(kind: str, call: Call) -> bool:
    """Whether a program of that name is in the directories of a call."""
    try:
        find_program(kind, call.path)
    except CniError:
        return False
    return True
