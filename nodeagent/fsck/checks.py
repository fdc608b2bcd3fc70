"""One check for each kind of effect: entries, kernel and places in, findings out; nothing is read or changed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nodeagent.fsck.entries import Entries
from nodeagent.fsck.finding import LEAKED, MISSING, ORPHANED, RESTART, Finding
from nodeagent.fsck.kernel import Kernel, Places
from runtime.linux.ledger import Effect

Check = Callable[[Entries, Kernel, Places], Iterator[Finding]]


def missing(entry: Effect, remedy: str = RESTART) -> Finding:
    return Finding(MISSING, entry.kind, entry.key, remedy, entry.holder)


def check_mounts(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Mounts below our directories: namespace pins, /dev/shm of pods, volumes."""
    known = entries.known("mount", "netns", "volume")
    sandboxes = {key for key in entries.known("dir") if Path(key).parent == places.sandboxes}
    for point in kernel.mounts:
        if not _is_ours(point, places) or point in known:
            continue
        # A sandbox's own entry stands for the pins of its namespaces too.
        if not any(parent in sandboxes for parent in _ancestors(point)):
            yield Finding(LEAKED, "mount", point, f"umount {point}, once nothing uses it")
    for kind in ("mount", "netns"):
        yield from (missing(entry) for entry in entries.due(kind) if entry.key not in kernel.mounts)
    for entry in entries.due("volume"):
        # A driver may publish a plain directory: only what is not there at all is missing.
        if entry.key not in kernel.mounts | kernel.paths:
            yield missing(entry)


def _is_ours(point: str, places: Places) -> bool:
    return any(str(place) in _ancestors(point) for place in (places.state, places.root, places.pods) if place)


def _ancestors(path: str) -> set[str]:
    return {str(parent) for parent in Path(path).parents}


def check_links(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Interfaces of the host: bridges of ours, and pods' ends of veth pairs on them."""
    known = entries.known("link")
    for port, bridge in kernel.ports.items():
        if bridge in known and port not in known:
            yield Finding(LEAKED, "link", port, f"ip link delete {port} (a port of {bridge})")
    for entry in entries.due("link"):
        # The link of a pod that has stopped goes with its namespace; its entry follows in a moment.
        if entry.key not in kernel.links and (_of_network(entry) or entry.holder in entries.networked):
            yield missing(entry)


def _of_network(entry: Effect) -> bool:
    return ":" in entry.holder


def check_addresses(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Leases of host-local."""
    known = entries.known("ip")
    for lease, directory in kernel.leases.items():
        if lease not in known:
            file = f"{directory}/{lease.rpartition('/')[2]}"
            yield Finding(LEAKED, "ip", lease, f"rm {file}, if no other program shares that directory")
    yield from (missing(entry) for entry in entries.due("ip") if entry.key not in kernel.leases)


def check_nft(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Elements of our tables, by the owner that their comment names."""
    known = {_element(entry) for entry in entries.known("nft").values()}
    for table, where, owner in sorted(kernel.elements - known):
        remedy = f"see nft list set inet {table} {where} (or map), and delete the element with that comment"
        yield Finding(LEAKED, "nft", f"inet {table} {where}: {owner}", remedy)
    yield from (missing(entry) for entry in entries.due("nft") if _element(entry) not in kernel.elements)


def _element(entry: Effect) -> tuple[str, str, str]:
    detail = entry.detail
    return detail.get("table", ""), detail.get("where", ""), detail.get("owner", "")


def check_cgroups(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Cgroups: entries hold logical paths, which end the directories wherever the daemon's own cgroup was."""
    logical = set(entries.known("cgroup"))
    above = {str(parent) for path in logical for parent in Path(path).parents} - {"/"}
    ours = str(places.sandboxes)
    for path, mark in sorted(kernel.marks.items()):
        # Of one that we made for our pods, another daemon on this host may have its own below.
        shared = any(other != ours and below.startswith(f"{path}/") for below, other in kernel.marks.items())
        if mark == ours and not shared and not any(path.endswith(known) for known in logical | above):
            yield Finding(LEAKED, "cgroup", path, f"write 1 to its cgroup.kill, then rmdir {path} in every hierarchy")
    present = {suffix for path in kernel.cgroups for suffix in _suffixes(path)}
    yield from (missing(entry) for entry in entries.due("cgroup") if entry.key not in present)


def _suffixes(path: str) -> Iterable[str]:
    names = path.split("/")[1:]
    return ("/" + "/".join(names[at:]) for at in range(len(names)))


def check_shims(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Shims: one for each sandbox that has a cgroup, none for others."""
    for sandbox in kernel.shims - entries.holders:
        yield Finding(LEAKED, "process", f"shim {sandbox}", "find it with ps -C shim:" + sandbox[:8] + " and kill it")
    for entry in entries.due("mount"):
        path = Path(entry.key)
        if path.parent.parent == places.sandboxes and path.parent.name not in kernel.shims:
            remedy = "restart crid: it ends the sandbox, and the pod is started anew"
            yield Finding(MISSING, "process", f"shim {path.parent.name}", remedy, entry.holder)


def check_processes(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Processes that stand in the ledger themselves; shims stand for their sandboxes."""
    yield from (missing(entry) for entry in entries.due("process") if entry.key not in kernel.processes)


def check_settings(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Settings of the host that a network changed: somebody may have set them back, or their interface may be gone."""
    for entry in entries.due("sysctl"):
        value, name = kernel.settings.get(entry.key), entry.key.replace("/", ".")
        if value is None:
            yield missing(entry)
        elif value == entry.detail.get("was"):
            remedy = f"it is {value} again, and pods need it: sysctl -w {name}={entry.detail.get('now', '1')}"
            yield missing(entry, remedy + ", and find who sets it back (sysctl.d(5))")


def check_routes(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Local routes to ::1 on bridges of ours."""
    for interface in sorted(kernel.localhost_routes & entries.known("link").keys() - entries.known("route").keys()):
        yield Finding(LEAKED, "route", interface, f"ip -6 route delete local ::1 dev {interface} table local")
    yield from (missing(entry) for entry in entries.due("route") if entry.key not in kernel.localhost_routes)


def check_directories(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Directories of sandboxes and pods."""
    known = entries.known("dir")
    parents = [places.sandboxes]
    # Another agent's pods may live in the same place: look only when ours has some there.
    if places.pods and any(Path(key).parent == places.pods for key in known):
        parents.append(places.pods)
    for path in sorted(kernel.paths - known.keys()):
        if Path(path).parent in parents:
            yield Finding(LEAKED, "dir", path, f"look whether anything is mounted there, then rm -r {path}")
    yield from (missing(entry) for entry in entries.due("dir") if entry.key not in kernel.paths)


def check_snapshots(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Layers and containers' writable layers; a layer's entry stands for the directory that it is unpacked in too."""
    known = entries.known("snapshot")
    for name in sorted(kernel.snapshots - known.keys()):
        if name.replace("unpacking/", "layers/") not in known:
            yield Finding(LEAKED, "snapshot", name, "restart crid: at its start it removes layers that nobody recorded")
    for entry in entries.due("snapshot"):
        if not {entry.key, entry.key.replace("layers/", "unpacking/")} & kernel.snapshots:
            yield missing(entry)


def check_ingests(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Partial blobs."""
    for name in sorted(kernel.ingests - entries.known("ingest").keys()):
        yield Finding(LEAKED, "ingest", name, f"rm {places.ingests / name}")
    yield from (missing(entry) for entry in entries.due("ingest") if entry.key not in kernel.ingests)


def check_loops(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Loop devices on files of ours."""
    known = entries.known("loop")
    ours = [str(place) for place in (places.root, places.state, places.kubelet_root) if place]
    for device, file in kernel.loops.items():
        if device not in known and any(place in _ancestors(file) for place in ours):
            yield Finding(LEAKED, "loop", device, f"losetup -d {device} (on {file})")
    yield from (missing(entry) for entry in entries.due("loop") if entry.key not in kernel.loops)


def check_holders(entries: Entries, kernel: Kernel, places: Places) -> Iterator[Finding]:
    """Entries of sandboxes and pods that are not in the ledger themselves; a network holds what its pods share."""
    for entry in entries.all_due():
        if entry.kind == "link" and entry.key not in kernel.links_up:
            continue
        if entry.holder and not _of_network(entry) and entry.holder not in entries.holders:
            yield Finding(ORPHANED, entry.kind, entry.key, RESTART, entry.holder)


CHECKS: tuple[Check, ...] = (
    check_mounts,
    check_links,
    check_addresses,
    check_nft,
    check_cgroups,
    check_shims,
    check_processes,
    check_settings,
    check_routes,
    check_directories,
    check_snapshots,
    check_ingests,
    check_loops,
    check_holders,
)
