"""What the kernel and the disk hold, read once and in the form that the ledger's keys have."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent.volumes.layout import aside
from runtime.linux.commands import run_command
from runtime.linux.ledger import Effect
from runtime.linux.mounttable import mounts
from runtime.linux.procs import Process

NFT_SECONDS = 20.0
NFT_LIMIT = 64 << 20
CGROUPS_MAX = 100_000
IFF_UP = 1  # linux/if.h
#: Set by the runtime on the v2 directory of every pod cgroup that it made itself; holds the directory of its sandboxes.
CGROUP_MARK = "trusted.nodeagent"
_SET = re.compile(r"\s*(?:set|map) (\w+) {")
_COMMENT = re.compile(r'comment "([^"]*)"')

#: Table, set and owner of an nftables element.
Element = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Places:
    """Where this node keeps its things; absolute, without links."""

    root: Path
    state: Path
    kubelet_root: Path | None = None

    @property
    def sandboxes(self) -> Path:
        """The directory that has one directory for each sandbox."""
        return self.state / "sandboxes"

    @property
    def snapshots(self) -> Path:
        """The directory of unpacked layers and of containers' writable ones."""
        return self.root / "snapshots"

    @property
    def ingests(self) -> Path:
        """The directory of blobs on their way."""
        return self.root / "content" / "ingest"

    @property
    def pods(self) -> Path | None:
        """The agent's directory of pods."""
        return self.kubelet_root / "pods" if self.kubelet_root else None


@dataclass(frozen=True, slots=True)
class Kernel:
    """All that is compared; paths are absolute."""

    mounts: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    #: a link that is down is on its way out: the daemon deletes it in a moment, and its entry with it
    links_up: frozenset[str] = frozenset()
    #: port -> bridge
    ports: dict[str, str] = field(default_factory=dict)
    #: directories below the cgroup2 mount, and the marks of those that carry one
    cgroups: frozenset[str] = frozenset()
    marks: dict[str, str] = field(default_factory=dict)
    elements: frozenset[Element] = frozenset()
    #: sandbox ids whose shim lives
    shims: frozenset[str] = frozenset()
    #: pids of the entries' processes that live
    processes: frozenset[str] = frozenset()
    #: values of the entries' settings, by their path below /proc/sys
    settings: dict[str, str] = field(default_factory=dict)
    #: interfaces that have a local route to ::1, other than lo
    localhost_routes: frozenset[str] = frozenset()
    #: loop device -> file behind it
    loops: dict[str, str] = field(default_factory=dict)
    #: lease files by "network/address", and the directory they are in
    leases: dict[str, str] = field(default_factory=dict)
    #: directories of sandboxes and of pods, and entries' paths that exist
    paths: frozenset[str] = frozenset()
    #: layers/<name>, containers/<name> and unpacking/<name> below the snapshots
    snapshots: frozenset[str] = frozenset()
    #: files of blobs that have not arrived whole
    ingests: frozenset[str] = frozenset()


def read_kernel(places: Places, entries: Iterable[Effect]) -> Kernel:
    """Read everything; `entries` name the tables and lease directories that are ours. Raises OSError."""
    listed = list(entries)
    table = mounts()
    cgroup_mounts = [mount.point for mount in table if mount.fstype == "cgroup2"]
    cgroups = _cgroups(cgroup_mounts[0]) if cgroup_mounts else {}
    links = dict(_links())
    return Kernel(
        mounts=frozenset(mount.point for mount in table),
        links=frozenset(links),
        links_up=frozenset(name for name, up in links.items() if up),
        ports=dict(_ports()),
        cgroups=frozenset(cgroups),
        marks={path: mark for path, mark in cgroups.items() if mark},
        elements=frozenset(_elements({entry.detail["table"] for entry in listed if "table" in entry.detail})),
        shims=frozenset(_shims(places)),
        processes=frozenset(e.key for e in listed if e.kind == "process" and Process.from_json(e.detail).alive()),
        settings=dict(_settings(entry.key for entry in listed if entry.kind == "sysctl")),
        localhost_routes=frozenset(_localhost_routes()),
        loops=dict(_loops()),
        leases=dict(_leases({(e.detail["data_dir"], e.detail["network"]) for e in listed if e.kind == "ip"})),
        paths=frozenset(_paths(places, listed)),
        snapshots=frozenset(_snapshots(places)),
        ingests=frozenset(_names(places.ingests)),
    )


def _links() -> Iterator[tuple[str, bool]]:
    """Interfaces of the host, and whether they are up; one that goes while it is read is gone."""
    for link in Path("/sys/class/net").iterdir():
        with contextlib.suppress(OSError):  # EINVAL, ENOENT: going; ENOTDIR: bonding_masters
            yield link.name, bool(int((link / "flags").read_text(), 16) & IFF_UP)


def _ports() -> Iterator[tuple[str, str]]:
    for link in Path("/sys/class/net").iterdir():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # no port of a bridge; bonding_masters
            yield link.name, (link / "brport" / "bridge").readlink().name


def _cgroups(mount_point: str) -> dict[str, str]:
    """Paths below the mount point, with a leading slash, and their marks."""
    found: dict[str, str] = {}
    for directory, _, _ in os.walk(mount_point):
        found[directory[len(mount_point) :]] = _mark(directory)
        if len(found) >= CGROUPS_MAX:
            raise OSError(f"more than {CGROUPS_MAX} cgroups below {mount_point}")
    return found


def _mark(directory: str) -> str:
    try:
        return os.path.realpath(os.fsdecode(os.getxattr(directory, CGROUP_MARK)))
    except OSError:  # ENODATA: not ours; ENOENT: gone meanwhile; EOPNOTSUPP: a kernel without
        return ""


def _elements(tables: Iterable[str]) -> Iterator[Element]:
    """Owners of the elements in tables of ours, from nft's listing: its JSON leaves the comments out."""
    for table in tables:
        done = run_command(["nft", "list", "table", "inet", table], timeout=NFT_SECONDS, limit=NFT_LIMIT)
        if done.returncode:
            continue  # no such table: its entries are missing then
        where = ""
        for line in done.stdout.decode("utf-8", "replace").splitlines():
            if start := _SET.match(line):
                where = start[1]
            yield from ((table, where, owner) for owner in _COMMENT.findall(line))


def _shims(places: Places) -> Iterator[str]:
    """Sandboxes that have a live shim: its working directory is the sandbox's, also when that has been removed."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if comm.read_bytes().startswith(b"shim:"):
                directory = Path(str(comm.with_name("cwd").readlink()).removesuffix(" (deleted)"))
                if directory.parent == places.sandboxes:
                    yield directory.name


def _settings(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # of an interface that is gone
            yield name, Path("/proc/sys", name).read_text().strip()


def _localhost_routes() -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        for line in Path("/proc/net/ipv6_route").read_text().splitlines():
            destination, length, *_, interface = line.split()
            if (int(destination, 16), length, interface != "lo") == (1, "80", True):
                yield interface


def _loops() -> Iterator[tuple[str, str]]:
    for device in Path("/sys/block").glob("loop*"):
        with contextlib.suppress(FileNotFoundError):  # a free device has no such file
            yield f"/dev/{device.name}", (device / "loop" / "backing_file").read_text().strip()


def _leases(stores: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Lease files of host-local, one for each address."""
    for data_dir, network in stores:
        directory = Path(data_dir) / network
        if directory.is_dir():
            for file in directory.iterdir():
                with contextlib.suppress(ValueError):
                    yield f"{network}/{ipaddress.ip_address(file.name)}", str(directory)


def _paths(places: Places, entries: Iterable[Effect]) -> Iterator[str]:
    for parent in (places.sandboxes, places.pods):
        if parent:
            yield from (f"{parent}/{name}" for name in _names(parent))
    yield from (entry.key for entry in entries if entry.kind in ("dir", "volume") and _is_there(Path(entry.key)))


def _is_there(path: Path) -> bool:
    """Or is being removed. lexists() asks for the name only: what a volume shows may hang."""
    return os.path.lexists(path) or os.path.lexists(aside(path))


def _snapshots(places: Places) -> Iterator[str]:
    for part in ("layers", "containers", "unpacking"):
        yield from (f"{part}/{name}" for name in _names(places.snapshots / part))


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
