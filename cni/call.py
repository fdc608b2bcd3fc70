"""One execution of one plugin: its parameters, and the configuration that is derived for it.

The same value serves both kinds of plugin. A program gets it as environment and standard input (SPEC.md, section 2), a
built-in plugin as it is; and when one of our plugins is run as a program, cni.skeleton makes it from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cni.conf import NetworkConf, PluginConf
from cni.errors import InvalidEnvironment
from cni.result import Result, parse_result

ADD: Final = "ADD"
CHECK: Final = "CHECK"
DEL: Final = "DEL"
GC: Final = "GC"
STATUS: Final = "STATUS"
VERSION: Final = "VERSION"

#: The key was misspelt in the reference library's first release with GC; both are sent, as it does since.
VALID_ATTACHMENTS: Final = ("cni.dev/valid-attachments", "cni.dev/attachments")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A command for a plugin; `config` is its request configuration, `path` the directories of CNI_PATH."""

    command: str
    config: Mapping[str, Any]
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()

    @property
    def network(self) -> str:
        """The name of the network."""
        return str(self.config.get("name", ""))

    @property
    def version(self) -> str:
        """The version of the specification that is spoken, in and out."""
        return str(self.config.get("cniVersion") or "")

    @property
    def attachment(self) -> str:
        """What an attachment is known by (SPEC.md, section 3)."""
        return f"{self.container_id}/{self.ifname}"

    def previous(self) -> Result | None:
        """The result of the plugins before this one; raises DecodingFailure."""
        doc = self.config.get("prevResult")
        return None if doc is None else parse_result(doc, self.version)

    def runtime_config(self, capability: str) -> Any:
        """The value of a capability argument, or None."""
        return (self.config.get("runtimeConfig") or {}).get(capability)

    def labelled_args(self) -> Mapping[str, Any]:
        """`args.cni` of the configuration (CONVENTIONS.md)."""
        return (self.config.get("args") or {}).get("cni") or {}

    def environment(self) -> dict[str, str]:
        """The parameters as environment variables."""
        variables = {
            "CNI_COMMAND": self.command,
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in self.args.items()),
            "CNI_PATH": ":".join(self.path),
        }
        return {name: value for name, value in variables.items() if value}

    def with_command(self, command: str) -> Call:
        """The same call with another command: what an upper plugin says to the one that it delegates to."""
        return replace(self, command=command)


def parse_args(text: str) -> dict[str, str]:
    """CNI_ARGS, "KEY=value;KEY=value", as a dict; raises InvalidEnvironment."""
    pairs = [pair.partition("=") for pair in text.split(";") if pair]
    if any(not key or not separator for key, separator, _ in pairs):
        raise InvalidEnvironment(f"CNI_ARGS {text!r} is not usable", "write KEY=value;KEY=value")
    return {key: value for key, _, value in pairs}


def check_args(args: Mapping[str, str]) -> None:
    """Raise InvalidEnvironment for args that CNI_ARGS cannot hold."""
    for key, value in args.items():
        if not key or any(letter in key + value for letter in ";=\0\n"):
            raise InvalidEnvironment(f"CNI_ARGS {key!r}: {value!r} is not usable", "no ; = NUL or line break")


def derive(
    network: NetworkConf, plugin: PluginConf, previous: Result | None, capability_args: Mapping[str, Any]
) -> dict[str, Any]:
    """The request configuration of one plugin (SPEC.md, "Deriving request configuration").

    `capabilities` is taken out, though the reference library leaves it in: the specification says "must not be set".
    """
    config = {key: value for key, value in plugin.doc.items() if key != "capabilities"}
    config |= {"cniVersion": network.version, "name": network.name}
    if previous is not None:
        config["prevResult"] = previous.to_json(network.version)
    wanted = {key: value for key, value in capability_args.items() if key in plugin.capabilities}
    if wanted:
        config["runtimeConfig"] = {**(config.get("runtimeConfig") or {}), **wanted}
    return config


def derive_for_gc(network: NetworkConf, plugin: PluginConf, valid: list[dict[str, str]]) -> dict[str, Any]:
    """The request configuration of GC: `valid` is a list of {"containerID", "ifname"}."""
    config = derive(network, plugin, None, {})
    return config | dict.fromkeys(VALID_ATTACHMENTS, valid)
