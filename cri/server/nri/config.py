"""[nri]: whether plugins may connect, where they are, and how long they may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

DEFAULT_STATE: Final = Path("/run/nodeagent")
DEFAULT_SOCKET: Final = Path("/var/run/nri/nri.sock")


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


def nri_config(document: Mapping[str, Any], state: Path) -> NriConfig:
    """The settings of a TOML table. Raises ValueError, which names the key."""
    socket = DEFAULT_SOCKET if state == DEFAULT_STATE else state / "nri.sock"
    values: dict[str, Any] = {"socket": socket} | _typed(NriConfig(), document, "[nri]")
    for key in ("plugin_registration_timeout", "plugin_request_timeout"):
        if key in values and not 0 < values[key] <= 600:
            raise ValueError(f"[nri]: {key} is {values[key]:g} s, but must be above 0 and at most 600")
    return NriConfig(**values)


def _typed(defaults: Any, document: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The table's values in the types of the defaults; raises ValueError for any other type, and for unknown keys."""
    values: dict[str, Any] = {}
    for key, value in document.items():
        default = getattr(defaults, key, None)
        if default is None:
            raise ValueError(f"{where}: unknown key {key!r}")
        values[key] = _value(default, value, f"{where}: {key}")
    return values


def _value(default: Any, value: Any, name: str) -> Any:
    if isinstance(default, bool) and isinstance(value, bool):
        return value
    if isinstance(default, Path) and isinstance(value, str) and value.startswith("/"):
        return Path(value)
    if isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, str) and isinstance(value, str):
        return value
    if isinstance(default, tuple) and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if isinstance(default, ValidatorConfig) and isinstance(value, dict):
        return ValidatorConfig(**_typed(default, value, "[nri.default_validator]"))
    kinds = {Path: "an absolute path", tuple: "a list of strings", float: "a number", ValidatorConfig: "a table"}
    kind = next((word for each, word in kinds.items() if isinstance(default, each)), type(default).__name__)
    raise ValueError(f"{name} is {value!r}, but must be {kind}")
