"""[streaming]: where the URLs of Exec, Attach and PortForward lead, and whether by TLS."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cri.server.settings import ConfigError, Table
from cri.server.streaming.server import IDLE_TIMEOUT

MAX_PORT = 65535
MAX_IDLE = 7 * 24 * 3600  # seconds


@dataclass(frozen=True, slots=True)
class StreamingConfig:
    """The keys of the table. Loopback by default: a URL is the only credential, and who has it runs commands."""

    address: str = "127.0.0.1"
    #: 0 takes a free one.
    port: int = 0
    #: PEM files, both or neither; with them the URLs are https.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    #: Seconds without a byte in either direction after which a session is ended.
    idle_timeout: float = IDLE_TIMEOUT

    @classmethod
    def of(cls, table: Table) -> StreamingConfig:
        """The settings of the table. Raises ConfigError."""
        defaults = cls()
        config = cls(
            address=_address(table, defaults.address),
            port=table.number("port", defaults.port, most=MAX_PORT),
            tls_cert=table.absolute("tls_cert", None),
            tls_key=table.absolute("tls_key", None),
            idle_timeout=table.seconds("idle_timeout", defaults.idle_timeout, most=MAX_IDLE),
        )
        table.refuse_rest()
        if (config.tls_cert is None) != (config.tls_key is None):
            raise ConfigError(f"{table.name}: tls_cert and tls_key belong together; set both, or neither")
        return config

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


def _address(table: Table, default: str) -> str:
    try:
        return str(ipaddress.ip_address(table.text("address", default)))
    except ValueError as error:
        raise ConfigError(f"{table.name}: address: {error}; 127.0.0.1 or ::1 keep the server on this host") from None
