"""Network configurations: conflists, single plugin configurations and drop-ins, read from JSON and checked.

SPEC.md, section 1. What a plugin's object holds beyond `type` and `capabilities` is the plugin's own and passed on
untouched. A configuration is checked as a whole before any of its plugins runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cni import versions
from cni.errors import InvalidConfig
from cni.names import check_network_name, check_plugin_type
from runtime.linux.files import read_limited

#: Larger files are refused: nobody writes a mebibyte of network configuration.
FILE_LIMIT: Final = 1 << 20
PLUGIN_LIMIT: Final = 64


@dataclass(frozen=True, slots=True)
class PluginConf:
    """One plugin of a network: its program's name and the JSON object that it is to get."""

    type: str
    doc: dict[str, Any]
    capabilities: frozenset[str] = frozenset()

    @classmethod
    def from_json(cls, doc: Any) -> PluginConf:
        """Raises InvalidConfig."""
        if not isinstance(doc, dict):
            raise InvalidConfig("a plugin's configuration must be a JSON object")
        kind = check_plugin_type(doc.get("type"))
        declared = doc.get("capabilities") or {}
        if not isinstance(declared, dict):
            raise InvalidConfig(f'plugin {kind}: "capabilities" must be a JSON object of booleans')
        ipam = doc.get("ipam")
        if ipam is not None and not isinstance(ipam, dict):
            raise InvalidConfig(f'plugin {kind}: "ipam" must be a JSON object')
        if ipam and "type" in ipam and ipam["type"] != "":
            check_plugin_type(ipam["type"])
        return cls(kind, doc, frozenset(name for name, wanted in declared.items() if wanted is True))


@dataclass(frozen=True, slots=True)
class NetworkConf:
    """A network: the plugins to run, in this order, and the version to speak with them."""

    name: str
    version: str
    plugins: tuple[PluginConf, ...]
    disable_check: bool = False
    disable_gc: bool = False
    doc: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """The configuration with everything it was made of inline, so that DEL needs no file."""
        plugins = [plugin.doc for plugin in self.plugins]
        return self.doc | {"name": self.name, "plugins": plugins, "loadOnlyInlinedPlugins": True}

    @property
    def programs(self) -> tuple[str, ...]:
        """The types of all plugins, those that manage addresses included."""
        types = [plugin.type for plugin in self.plugins]
        types += [ipam["type"] for plugin in self.plugins if (ipam := plugin.doc.get("ipam") or {}).get("type")]
        return tuple(dict.fromkeys(types))


def parse_network(doc: dict[str, Any], *, source: str = "", dropins: tuple[PluginConf, ...] = ()) -> NetworkConf:
    """A network from the JSON of a conflist, or of a single plugin's configuration (SPEC.md before 1.0).

    `dropins` are appended to its plugins unless it says loadOnlyInlinedPlugins. Raises InvalidConfig.
    """
    name = check_network_name(doc.get("name"))
    if "plugins" not in doc and "type" in doc:
        single = PluginConf.from_json(doc)
        doc = {key: doc[key] for key in ("cniVersion", "name") if key in doc} | {"plugins": [single.doc]}
    inlined_only = _boolean(doc, "loadOnlyInlinedPlugins")
    plugins = tuple(PluginConf.from_json(item) for item in _plugin_list(doc, inlined_only))
    plugins += () if inlined_only else dropins
    if not plugins:
        raise InvalidConfig(f"network {name} has no plugins", 'list at least one under "plugins"')
    if len(plugins) > PLUGIN_LIMIT:
        raise InvalidConfig(f"network {name} has {len(plugins)} plugins", f"at most {PLUGIN_LIMIT} are run")
    return NetworkConf(
        name,
        versions.select(doc),
        plugins,
        _boolean(doc, "disableCheck"),
        _boolean(doc, "disableGC"),
        doc,
        source,
    )


def _plugin_list(doc: dict[str, Any], inlined_only: bool) -> list[Any]:
    if "plugins" not in doc and inlined_only:
        raise InvalidConfig('"loadOnlyInlinedPlugins" is true, but there is no "plugins"')
    plugins = doc.get("plugins", [])
    if not isinstance(plugins, list):
        raise InvalidConfig('"plugins" must be a list')
    return plugins


def _boolean(doc: dict[str, Any], key: str) -> bool:
    # The reference library takes the words "true" and "false" too, since templates produce them.
    value = doc.get(key, False)
    word = value.lower() if isinstance(value, str) else value
    if word in ("true", "false"):
        return bool(word == "true")
    if not isinstance(value, bool):
        raise InvalidConfig(f'"{key}" must be true or false, not {value!r}')
    return value


def load_network(path: Path) -> NetworkConf:
    """The network of one file, its drop-ins (<name>/*.conf beside the file) included.

    Raises InvalidConfig with the file and the place in it, or OSError.
    """
    doc = _load_json(path)
    try:
        if not isinstance(doc, dict):
            raise InvalidConfig("a network configuration must be a JSON object")
        directory = path.parent / check_network_name(doc.get("name"))
        return parse_network(doc, source=str(path), dropins=_load_dropins(directory))
    except InvalidConfig as error:
        raise InvalidConfig(f"{path}: {error.message}", error.details) from error


def _load_dropins(directory: Path) -> tuple[PluginConf, ...]:
    if not directory.is_dir():
        return ()
    paths = sorted(path for path in directory.iterdir() if path.suffix == ".conf" and path.is_file())
    return tuple(PluginConf.from_json(_load_json(path)) for path in paths)


def _load_json(path: Path) -> Any:
    try:
        return json.loads(read_limited(path, FILE_LIMIT))
    except json.JSONDecodeError as error:
        raise InvalidConfig(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InvalidConfig(f"{path}: not JSON: {error}") from error
