"""Where a registry's images really come from: mirrors and TLS settings in containerd's hosts.toml layout.

    <directory>/<host>/hosts.toml      e.g. docker.io; registry.example_5000_ or registry.example:5000
    <directory>/_default/hosts.toml    for every host without a directory of its own

    server = "https://registry-1.docker.io"
    [host."https://mirror.example"]
      capabilities = ["pull", "resolve"]
      ca = "mirror.pem"

Facts: containerd's docs/hosts.md; a directory without that file may hold certificates under Docker's names (*.crt for
authorities, *.cert with *.key for us). Read anew at each pull, so that a change needs no restart. The hosts are tried
in the order of the file, the server itself last; without a file there is only the server.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import ssl
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from images.errors import InvalidConfiguration
from runtime.linux.files import read_limited

FILE_LIMIT = 1 << 20
DEFAULT = "_default"
DOCKER_HUB = {"docker.io": "registry-1.docker.io"}
PULL, RESOLVE = "pull", "resolve"
TLS_SETTINGS = ("ca", "client", "skip_verify")


@dataclass(frozen=True, slots=True)
class Host:
    """One server to ask. `base` ends in /v2, or in what `override_path` says; `tls` is None for plain HTTP."""

    base: str
    tls: ssl.SSLContext | None
    capabilities: frozenset[str] = frozenset({PULL, RESOLVE})
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Seconds for a connection; None for the default.
    dial_timeout: float | None = None
    #: A proxy for this host alone; "" for what the environment says.
    proxy: str = ""
    #: What a mirror is told about the registry it stands in for (the query parameter `ns`); "" for the registry.
    namespace: str = ""

    @property
    def name(self) -> str:
        """host[:port], for messages and as a key for credentials."""
        return urlsplit(self.base).netloc


def hosts_for(domain: str, directories: Sequence[Path]) -> list[Host]:
    """The servers for a reference's domain, in the order in which to try them; raises InvalidConfiguration."""
    for directory in directories:
        for name in (_port_in_underscores(domain), domain, DEFAULT):
            if hosts := _from_directory(domain, directory / name):
                return hosts
    return [_server(domain, {}, Path())]


def _from_directory(domain: str, directory: Path) -> list[Host]:
    if (directory / "hosts.toml").is_file():
        return _from_file(domain, directory / "hosts.toml")
    certificates = _docker_certificates(directory)
    return _explained(directory, lambda: [_server(domain, certificates, directory)]) if certificates else []


def _explained(where: Path, make: Callable[[], list[Host]]) -> list[Host]:
    try:
        return make()
    except (TypeError, ValueError, OSError) as error:  # ssl.SSLError is an OSError
        raise InvalidConfiguration(f"{where}: {error}") from error


def _docker_certificates(directory: Path) -> dict[str, Any]:
    """The directory's certificates in the words of a hosts.toml; empty when there are none."""
    authorities = sorted(path.name for path in directory.glob("*.crt"))
    clients = [[path.name, path.with_suffix(".key").name] for path in sorted(directory.glob("*.cert"))]
    return {key: value for key, value in (("ca", authorities), ("client", clients)) if value}


def _from_file(domain: str, file: Path) -> list[Host]:
    try:
        document = tomllib.loads(read_limited(file, FILE_LIMIT).decode())
    except (OSError, ValueError) as error:
        raise InvalidConfiguration(f"{file}: {error}") from error
    mirrors = document.get("host", {})
    if not isinstance(mirrors, dict) or not all(isinstance(table, dict) for table in mirrors.values()):
        raise InvalidConfiguration(f'{file}: host: want tables like [host."https://mirror"]')
    return _explained(
        file,
        lambda: [
            *(_host(url, table, file.parent, domain) for url, table in mirrors.items()),
            _server(domain, document, file.parent),
        ],
    )


def _server(domain: str, document: Mapping[str, Any], directory: Path) -> Host:
    default = DOCKER_HUB.get(domain, domain)
    return _host(str(document.get("server") or default), document, directory, "")


def _host(url: str, table: Mapping[str, Any], directory: Path, namespace: str) -> Host:
    wants_tls = any(key in table for key in TLS_SETTINGS)
    if "://" not in url:
        url = f"{'http' if _is_loopback(url) and not wants_tls else 'https'}://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ValueError(f"{url!r} is not http[s]://host[:port][/path]")
    path = parts.path.rstrip("/")
    if not _flag(table, "override_path") and not path.endswith("/v2"):
        path += "/v2"
    return Host(
        f"{parts.scheme}://{parts.netloc}{path}",
        _tls(table, directory) if parts.scheme == "https" else None,
        frozenset(_strings(table, "capabilities", [PULL, RESOLVE])),
        _headers(table),
        _seconds(table.get("dial_timeout")),
        _proxy(str(table.get("proxy", ""))),
        namespace if namespace != parts.netloc else "",
    )


@functools.cache
def _default_tls() -> ssl.SSLContext:
    """Shared, as loading the system's authorities takes longer than a connection."""
    return ssl.create_default_context()


def _tls(table: Mapping[str, Any], directory: Path) -> ssl.SSLContext:
    if not any(key in table for key in TLS_SETTINGS):
        return _default_tls()
    context = ssl.create_default_context()
    for path in _strings(table, "ca", []):
        context.load_verify_locations(directory / path)
    client = table.get("client", [])
    for pair in [client] if isinstance(client, str) else client:
        certificate, key = (pair, None) if isinstance(pair, str) else pair
        context.load_cert_chain(directory / certificate, directory / key if key else None)
    if _flag(table, "skip_verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _headers(table: Mapping[str, Any]) -> dict[str, str]:
    headers = table.get("header", {})
    if not isinstance(headers, dict):
        raise TypeError("header: want a table of strings")
    return {name: ", ".join(_strings(headers, name, [])) for name in headers}


def _strings(table: Mapping[str, Any], key: str, default: list[str]) -> list[str]:
    value = table.get(key, default)
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{key}: want a string or a list of strings")
    return value


def _flag(table: Mapping[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise TypeError(f"{key}: want true or false")
    return value


def _seconds(text: object) -> float | None:
    """A duration in Go's notation, of one unit."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", str(text))
    if not found:
        raise ValueError(f"dial_timeout: {text!r} is not a duration like 500ms, 1s or 2m")
    return float(found[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[found[2]]


def _proxy(url: str) -> str:
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise ValueError(f"proxy: {url!r} is not http[s]://host[:port]")
    return url


def _is_loopback(netloc: str) -> bool:
    """Whether plain HTTP is the default for this host: it cannot be reached from elsewhere. Port 443 still is HTTPS."""
    parts = urlsplit(f"//{netloc}")
    if parts.hostname is None or parts.port == 443:
        return False
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False


def _port_in_underscores(domain: str) -> str:
    host, colon, port = domain.rpartition(":")
    return f"{host}_{port}_" if colon else domain
