"""[streaming]: where the URLs of Exec, Attach and PortForward lead, and whether by TLS."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cri.server.streaming.server import IDLE_TIMEOUT


@dataclass(frozen=True, slots=True)
class StreamingConfig:
    """The keys of the table. Loopback by default: a URL is the only credential, and who has it runs commands."""

    address: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    """PEM files, both or neither; with them the URLs are https."""
    idle_timeout: float = IDLE_TIMEOUT
    """Seconds without a byte in either direction after which a session is ended."""

    def tls(self) -> ssl.SSLContext | None:
        """The server's side of TLS, from version 1.2 on; None without a certificate. Raises OSError, ssl.SSLError."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key)
        except OSError as error:
            error.add_note(f"[streaming] tls_cert {self.tls_cert}, tls_key {self.tls_key}: the server's PEM files")
            raise
        return context


def streaming_config(document: Mapping[str, Any]) -> StreamingConfig:
    """The settings of a TOML table. Raises ValueError, which names the key."""
    defaults = StreamingConfig()
    for key in document:
        if not hasattr(defaults, key) or key == "tls":
            raise ValueError(f"[streaming]: unknown key {key!r}")
    config = StreamingConfig(
        address=_address(document.get("address", defaults.address)),
        port=int(_number(document, "port", defaults.port, 65535, int)),
        tls_cert=_file(document, "tls_cert"),
        tls_key=_file(document, "tls_key"),
        idle_timeout=float(_number(document, "idle_timeout", defaults.idle_timeout, 7 * 24 * 3600, int | float)),
    )
    if (config.tls_cert is None) != (config.tls_key is None):
        raise ValueError("[streaming]: tls_cert and tls_key belong together; set both, or neither")
    if config.idle_timeout <= 0:
        raise ValueError("[streaming]: idle_timeout is 0 s, but must be above")
    return config


def _address(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise ValueError(f"[streaming]: address: {error}; 127.0.0.1 or ::1 keep the server on this host") from None


def _number(document: Mapping[str, Any], key: str, default: float, most: int, kind: Any) -> float:
    value = document.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"[streaming]: {key} is {value!r}, but must be a number from 0 to {most}")
    number: float = value
    return number


def _file(document: Mapping[str, Any], key: str) -> Path | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError(f"[streaming]: {key} is {value!r}, but must be an absolute path")
    return Path(value)
