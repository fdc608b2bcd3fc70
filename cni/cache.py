"""Results of ADD kept on disk until DEL, in the reference library's format (libcni, "cniCacheV1").

    <cache dir>/results/<network>-<container id>-<interface>

The specification asks for it: CHECK and DEL get the result back, also after a restart. Together with the configuration
and the arguments of the attachment, DEL can be done when the network's file has changed or is gone.

A file is replaced by rename, so that kill -9 leaves the old or the new one; but not fsynced, which would cost each
pod a disk's latency: after a power cut there is no attachment any more that it could describe, and a file
that is torn counts as missing.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cni.attachment import Attachment
from cni.conf import NetworkConf, parse_network
from cni.errors import CniError
from cni.result import Result, parse_result
from runtime.linux.files import read_limited

KIND: Final = "cniCacheV1"
LIMIT: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Cached:
    """One attachment as it was made; `network` is None when its configuration cannot be read any more."""

    container_id: str
    ifname: str
    network_name: str
    netns: str = ""
    args: dict[str, str] = field(default_factory=dict)
    capability_args: dict[str, Any] = field(default_factory=dict)
    network: NetworkConf | None = None
    result: Result | None = None

    @property
    def attachment(self) -> Attachment:
        """As it was asked for, but without a way into the pod."""
        return Attachment(self.container_id, self.netns, self.ifname, None, self.args, self.capability_args)


class ResultCache:
    """The results directory of one cache directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "results"

    def put(self, cached: Cached) -> None:
        """Keep an attachment; raises OSError."""
        assert cached.network is not None and cached.result is not None
        doc = {
            "kind": KIND,
            "containerId": cached.container_id,
            "ifName": cached.ifname,
            "networkName": cached.network_name,
            "netns": cached.netns,
            "cniArgs": [[key, value] for key, value in cached.args.items()],
            "capabilityArgs": cached.capability_args,
            "config": base64.b64encode(json.dumps(cached.network.to_json()).encode()).decode(),
            "result": cached.result.to_json(cached.network.version),
        }
        path = self._path(cached.network_name, cached.container_id, cached.ifname)
        temporary = f"{path}.tmp"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(json.dumps(doc).encode())
        os.rename(temporary, path)

    def get(self, network: str, container_id: str, ifname: str) -> Cached | None:
        """What was kept, or None; a file that cannot be understood counts as missing."""
        return _load(self._path(network, container_id, ifname))

    def delete(self, network: str, container_id: str, ifname: str) -> None:
        """Forget an attachment; an unknown one is no error."""
        Path(self._path(network, container_id, ifname)).unlink(missing_ok=True)

    def all(self) -> Iterator[Cached]:
        """Every attachment that is kept."""
        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return
        for name in names:
            if not name.endswith(".tmp") and (cached := _load(str(self.directory / name))) is not None:
                yield cached

    def _path(self, network: str, container_id: str, ifname: str) -> str:
        return f"{self.directory}/{network}-{container_id}-{ifname}"


def _load(path: str) -> Cached | None:
    try:
        doc = json.loads(read_limited(path, LIMIT))
        if doc["kind"] != KIND:
            return None
        network = _network(doc)
        return Cached(
            doc["containerId"],
            doc["ifName"],
            doc["networkName"],
            doc.get("netns") or "",
            {str(key): str(value) for key, value in doc.get("cniArgs") or []},
            dict(doc.get("capabilityArgs") or {}),
            network,
            parse_result(doc["result"], network.version if network else "") if doc.get("result") else None,
        )
    except (OSError, ValueError, KeyError, TypeError, CniError):
        return None


def _network(doc: Mapping[str, Any]) -> NetworkConf | None:
    try:
        return parse_network(json.loads(base64.b64decode(doc["config"])))
    except (ValueError, KeyError, TypeError, CniError):
        return None
