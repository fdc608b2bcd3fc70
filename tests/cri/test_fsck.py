"""fsck beside a running daemon: silent while all is well, and exact about what is not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cri.proto import api_pb2 as api
from nodeagent.fsck import Finding, fsck
from runtime.linux.ledger import Effect, Ledger
from tests.support.crid import Crid, Sandbox

PORTS = [{"container_port": 80, "host_port": 18080}]
NODES = {"network": api.NODE, "ipc": api.NODE, "pid": api.CONTAINER}


def found(crid: Crid) -> list[tuple[str, str]]:
    return [(finding.problem, finding.kind) for finding in fsck(crid.root, crid.state)]


async def pods(crid: Crid, busybox: str) -> list[Sandbox]:
    """One pod with a host port, one on the node's namespaces, one that shares its PID namespace; all running."""
    options: tuple[dict[str, Any], ...] = ({}, NODES, {"pid": api.POD})
    made = []
    for number, namespaces in enumerate(options):
        linux = {"security_context": {"namespace_options": namespaces}}
        made.append(await crid.run_pod(linux=linux, port_mappings=[] if number else PORTS))
        await crid.run(made[-1], busybox, ["sleep", "1000"])
    return made


async def test_nothing_is_found_at_any_time_of_a_pods_life(crid: Crid, busybox: str) -> None:
    assert found(crid) == []
    running = await pods(crid, busybox)
    assert found(crid) == []
    await crid.cri.StopPodSandbox(pod_sandbox_id=running[0][0])
    assert found(crid) == []
    crid.kill()
    assert found(crid) == []
    await crid.start()
    assert found(crid) == []
    await crid.clean()
    assert found(crid) == []


@contextmanager
def struck(crid: Crid, holder: str) -> Iterator[None]:
    """The ledger without what one sandbox holds."""
    with closing(Ledger(crid.root / "ledger.db", "crid")) as ledger:
        entries = ledger.entries(holder=holder)
        ledger.strike(*entries)
        try:
            yield
        finally:
            ledger.record(*entries)


async def test_a_pod_that_is_not_in_the_ledger_has_leaked_in_every_part(crid: Crid, busybox: str) -> None:
    [(id, _), *_] = await pods(crid, busybox)
    with struck(crid, id):
        findings = fsck(crid.root, crid.state)
        kinds = {finding.kind for finding in findings if finding.problem == "leaked"}
        assert kinds == {"mount", "link", "ip", "nft", "cgroup", "process", "dir", "snapshot"}
        assert {finding.problem for finding in findings} == {"leaked"}
        assert all(id in finding.key for finding in findings if finding.kind in ("mount", "process", "dir", "nft"))
    assert found(crid) == []


#: (entry, what fsck says of it)
NOTHING_BEHIND = [
    (Effect("netns", "/nowhere/ns/net", "gone"), "missing"),
    (Effect("mount", "/nowhere/shm", "gone"), "missing"),
    (Effect("cgroup", "/nowhere/pod", "gone"), "missing"),
    (Effect("dir", "/nowhere", "gone"), "missing"),
    (Effect("link", "nowhere0", "network:gone"), "missing"),
    (Effect("ip", "gone/10.0.0.1", "gone", {"data_dir": "/nowhere", "network": "gone"}), "missing"),
    (Effect("nft", "inet gone x y", "gone", {"table": "gone", "where": "x", "owner": "y"}), "missing"),
    (Effect("snapshot", "containers/gone", "gone"), "missing"),
    (Effect("route", "nowhere0", "network:gone"), "missing"),
    # No process has started before its machine.
    (Effect("process", str(os.getpid()), "gone", {"pid": os.getpid(), "start_time": 0}), "missing"),
    (Effect("sysctl", "net/ipv4/conf/nowhere0/route_localnet", "network:gone", {"was": "0", "now": "1"}), "missing"),
    (Effect("ingest", "gone"), "missing"),
    (Effect("loop", "/dev/loop4095", "gone"), "missing"),
    (Effect("volume", "/nowhere/volume", "gone"), "missing"),
    (Effect("cni", "gone/eth0", "gone"), "orphaned"),
]


@pytest.mark.parametrize(("entry", "problem"), NOTHING_BEHIND, ids=[entry.kind for entry, _ in NOTHING_BEHIND])
async def test_an_entry_with_nothing_behind_it_is_found(crid: Crid, entry: Effect, problem: str) -> None:
    with closing(Ledger(crid.root / "ledger.db", "fsck-test")) as ledger:
        ledger.record(entry)
        try:
            findings = fsck(crid.root, crid.state)
        finally:
            ledger.strike(entry)
    about: list[Finding] = [finding for finding in findings if finding.key == entry.key and finding.kind == entry.kind]
    assert problem in [finding.problem for finding in about]
    assert len(findings) == len(about)


@contextmanager
def left_behind(crid: Crid) -> Iterator[None]:
    """A port on the daemon's bridge and a file among its downloads that it knows nothing of."""
    file, port = crid.root / "content" / "ingest" / "left", f"{crid.bridge}x"
    file.touch()
    subprocess.run(["ip", "link", "add", port, "type", "veth", "peer", "name", f"{port}y"], check=True)
    try:
        subprocess.run(["ip", "link", "set", port, "master", crid.bridge], check=True)
        yield
    finally:
        subprocess.run(["ip", "link", "delete", port], check=True)
        file.unlink()


async def test_what_somebody_else_left_on_a_bridge_or_in_a_directory_of_ours_is_found(crid: Crid) -> None:
    await crid.run_pod()
    with left_behind(crid):
        assert found(crid) == [("leaked", "ingest"), ("leaked", "link")]
    assert found(crid) == []


async def test_a_setting_that_somebody_has_put_back_is_found(crid: Crid) -> None:
    name = "net/ipv4/neigh/default/gc_stale_time"
    value = Path("/proc/sys", name).read_text().strip()
    with closing(Ledger(crid.root / "ledger.db", "fsck-test")) as ledger:
        ledger.record(changed := Effect("sysctl", name, "network:x", {"was": "1", "now": value}))
        assert found(crid) == []
        ledger.record(changed := Effect("sysctl", name, "network:x", {"was": value, "now": "61"}))
        [finding] = fsck(crid.root, crid.state)
        ledger.strike(changed)
    assert (finding.problem, finding.kind, finding.key) == ("missing", "sysctl", name)
    assert "sysctl -w net.ipv4.neigh.default.gc_stale_time=61" in finding.remedy
