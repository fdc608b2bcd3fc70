"""The files that a runtime puts into /etc of every container of a pod: resolv.conf, hosts, hostname.

They live in the sandbox's state directory and are bind-mounted; a client that mounts its own (the kubelet does, for
/etc/hosts) keeps it. Containers may write to them, so they have a small file system to themselves: what would fill the
node's /run fills that (CVE-2020-8557 was the disk filled through /etc/hosts).
"""

from __future__ import annotations

import os
from pathlib import Path

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest
from cri.server.security.user_namespaces import Maps
from runtime.linux import mountapi
from runtime.linux.files import read_limited
from runtime.linux.mounts import filesystem
from runtime.linux.userns import host_id

MOUNTED = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_LIMIT = 1 << 20
_SIZE = (("size", str(4 * _LIMIT)), ("nr_inodes", "16"), ("mode", "755"))
_ATTRIBUTES = mountapi.MOUNT_ATTR_NOSUID | mountapi.MOUNT_ATTR_NODEV | mountapi.MOUNT_ATTR_NOEXEC
_OWN_HOSTS = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


def resolv_conf(config: api.DNSConfig) -> bytes:
    """resolv.conf(5); raises InvalidRequest for a word that would become another line."""
    lines = [f"nameserver {_word(server)}" for server in config.servers]
    if config.searches:
        lines.insert(0, "search " + " ".join(_word(domain) for domain in config.searches))
    if config.options:
        lines.append("options " + " ".join(_word(option) for option in config.options))
    return "".join(f"{line}\n" for line in lines).encode()


def _word(text: str) -> str:
    if not text.isprintable() or " " in text or not text:
        raise InvalidRequest(f"dns_config: {text[:80]!r} is not one word")
    return text


def write_etc_files(directory: Path, config: api.PodSandboxConfig, hostname: str, maps: Maps | None) -> None:
    """Write the three files, which belong to the root of the pod's user namespace, if it has one.

    Blocks for as long as three files on tmpfs take; raises OSError, InvalidRequest.
    """
    directory.mkdir(mode=0o755, exist_ok=True)
    mount = filesystem("tmpfs", "etc", _SIZE, _ATTRIBUTES)
    try:
        mountapi.move_mount_at(mount, str(directory))
    finally:
        os.close(mount)
    dns = resolv_conf(config.dns_config) if config.HasField("dns_config") else _host_file("/etc/resolv.conf", b"")
    _write(directory / "resolv.conf", dns)
    _write(directory / "hostname", f"{hostname}\n".encode())
    _write(directory / "hosts", _host_file("/etc/hosts", _OWN_HOSTS.encode()))
    if maps is not None:  # tmpfs itself can be id-mapped since Linux 6.3 only
        for path in MOUNTED:
            os.chown(directory / os.path.basename(path), host_id(maps["uid"], 0), host_id(maps["gid"], 0))


def _host_file(path: str, default: bytes) -> bytes:
    try:
        return read_limited(path, _LIMIT)
    except FileNotFoundError:
        return default


def _write(path: Path, data: bytes) -> None:
    # Not write_atomic(): nobody sees the sandbox yet, and a crash now removes it altogether.
    path.write_bytes(data)
    path.chmod(0o644)
