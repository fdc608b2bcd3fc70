"""The plugins that are built in, by type.

One is imported when it is first asked for. Behind them is pyroute2, whose import takes a tenth of a second, and a crid
that starts beside running pods answers its clients before it needs a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from cni.plugin import Plugin

_MODULES: Final[Mapping[str, str]] = {
    "bridge": "cni.plugins.bridge",
    "host-local": "cni.plugins.host_local",
    "loopback": "cni.plugins.loopback",
    "portmap": "cni.plugins.portmap",
}


class _Builtin(Mapping[str, Plugin]):
    def __getitem__(self, kind: str) -> Plugin:
        plugin: Plugin = import_module(_MODULES[kind]).plugin
        return plugin

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


BUILTIN: Final[Mapping[str, Plugin]] = _Builtin()
