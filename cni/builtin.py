"""The plugins that are built in, by type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cni.plugin import Plugin
from cni.plugins import bridge, host_local, loopback, portmap

BUILTIN: Final[Mapping[str, Plugin]] = {
    module.plugin.type: module.plugin for module in (bridge, host_local, loopback, portmap)
}
