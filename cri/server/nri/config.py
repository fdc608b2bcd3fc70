"""[nri]: whether plugins may connect, where they are, and how long they may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cri.server.settings import Table

DEFAULT_STATE: Final = Path("/run/nodeagent")
DEFAULT_SOCKET: Final = Path("/var/run/nri/nri.sock")
MAX_TIMEOUT: Final = 600  # seconds


@dataclass(frozen=True, slots=True)
class ValidatorConfig:
    """[nri.default_validator]; the keys are containerd's."""

    enable: bool = False
    reject_oci_hook_adjustment: bool = False
    reject_runtime_default_seccomp_adjustment: bool = False
    reject_unconfined_seccomp_adjustment: bool = False
    reject_custom_seccomp_adjustment: bool = False
    reject_namespace_adjustment: bool = False
    reject_sysctl_adjustment: bool = False
    required_plugins: tuple[str, ...] = ()
    tolerate_missing_plugins_annotation: str = ""

    @classmethod
    def of(cls, table: Table) -> ValidatorConfig:
        """The settings of the table. Raises ConfigError."""
        config = cls(
            enable=table.flag("enable"),
            reject_oci_hook_adjustment=table.flag("reject_oci_hook_adjustment"),
            reject_runtime_default_seccomp_adjustment=table.flag("reject_runtime_default_seccomp_adjustment"),
            reject_unconfined_seccomp_adjustment=table.flag("reject_unconfined_seccomp_adjustment"),
            reject_custom_seccomp_adjustment=table.flag("reject_custom_seccomp_adjustment"),
            reject_namespace_adjustment=table.flag("reject_namespace_adjustment"),
            reject_sysctl_adjustment=table.flag("reject_sysctl_adjustment"),
            required_plugins=table.texts("required_plugins"),
            tolerate_missing_plugins_annotation=table.text("tolerate_missing_plugins_annotation"),
        )
        table.refuse_rest()
        return config


@dataclass(frozen=True, slots=True)
class NriConfig:
    """[nri]. The keys are containerd's, but `socket`; timeouts are in seconds.

    A crid with another state directory than the default one is a second runtime on its node: its plugins connect to
    nri.sock in there.
    """

    socket: Path = DEFAULT_SOCKET
    disable: bool = False
    disable_connections: bool = False
    plugin_path: Path = Path("/opt/nri/plugins")
    plugin_config_path: Path = Path("/etc/nri/conf.d")
    plugin_registration_timeout: float = 5.0
    plugin_request_timeout: float = 2.0
    default_validator: ValidatorConfig = field(default_factory=ValidatorConfig)

    @classmethod
    def of(cls, table: Table, state: Path) -> NriConfig:
        """The settings of the table, for a crid with that state directory. Raises ConfigError."""
        default = cls(socket=DEFAULT_SOCKET if state == DEFAULT_STATE else state / "nri.sock")
        config = cls(
            socket=table.absolute("socket", default.socket),
            disable=table.flag("disable"),
            disable_connections=table.flag("disable_connections"),
            plugin_path=table.absolute("plugin_path", default.plugin_path),
            plugin_config_path=table.absolute("plugin_config_path", default.plugin_config_path),
            plugin_registration_timeout=table.seconds(
                "plugin_registration_timeout", default.plugin_registration_timeout, MAX_TIMEOUT
            ),
            plugin_request_timeout=table.seconds("plugin_request_timeout", default.plugin_request_timeout, MAX_TIMEOUT),
            default_validator=ValidatorConfig.of(table.table("default_validator")),
        )
        table.refuse_rest()
        return config
