"""fsck's checks on hand-made ledgers and kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nodeagent.fsck import Finding
from nodeagent.fsck.checks import CHECKS
from nodeagent.fsck.entries import Entries
from nodeagent.fsck.finding import LEAKED, MISSING, ORPHANED
from nodeagent.fsck.kernel import Kernel, Places
from runtime.linux.ledger import Effect

PLACES = Places(Path("/root"), Path("/state"), Path("/kubelet"))
BOX = "/state/sandboxes/box"
NFT = {"table": "t", "where": "masquerade4", "owner": "net box eth0", "key": "k", "value": ""}


def check(entries: list[Effect], kernel: Kernel, later: list[Effect] | None = None) -> list[tuple[str, str, str]]:
    both = Entries(entries, entries if later is None else later)
    findings = [finding for each in CHECKS for finding in each(both, kernel, PLACES)]
    assert all(finding.remedy for finding in findings)
    return [(finding.problem, finding.kind, finding.key) for finding in sorted(findings, key=Finding.rank)]


def held(kind: str, key: str, /, **detail: Any) -> Effect:
    return Effect(kind, key, "box", detail, "crid", created=1)


#: A pod in full: its entries, and what the kernel has for each.
POD = [
    held("dir", BOX),
    held("mount", f"{BOX}/shm"),
    held("netns", f"{BOX}/ns/net"),
    held("cgroup", "/kubepods/pod1"),
    held("cgroup", "/kubepods/pod1/c1"),
    held("link", "veth1"),
    held("ip", "net/10.0.0.2", data_dir="/leases", network="net"),
    held("nft", "inet t masquerade4 k", **NFT),
    held("snapshot", "containers/c1"),
    held("loop", "/dev/loop7"),
    held("process", "77", pid=77, start_time=1),
    Effect("route", "br0", "network:net", {}, "crid", created=1),
    Effect("sysctl", "net/ipv4/ip_forward", "network:net", {"was": "0", "now": "1"}, "crid", created=1),
    Effect("link", "br0", "network:net", {}, "crid", created=1),
    Effect("snapshot", "layers/aa", "", {}, "crid", created=1),
    Effect("snapshot", "layers/bb", "", {}, "crid", created=1),
    Effect("ingest", "sha256-aa", "", {}, "crid", created=1),
    Effect("dir", "/kubelet/pods/uid1", "uid1", {}, "agent", created=1),
    Effect("volume", "/kubelet/pods/uid1/volumes/v", "uid1", {}, "agent", created=1),
]
FULL: dict[str, Any] = {
    "mounts": frozenset({"/", f"{BOX}/shm", f"{BOX}/ns/net", f"{BOX}/ns/ipc", "/kubelet/pods/uid1/volumes/v"}),
    "links": frozenset({"lo", "eth0", "br0", "veth1"}),
    "ports": {"veth1": "br0", "other": "docker0"},
    "cgroups": frozenset({"", "/kubepods", "/kubepods/pod1", "/kubepods/pod1/c1", "/unit/kubepods"}),
    "marks": {"/kubepods": "/state/sandboxes", "/kubepods/pod1": "/state/sandboxes"},
    "elements": frozenset({("t", "masquerade4", "net box eth0")}),
    "shims": frozenset({"box"}),
    "processes": frozenset({"77"}),
    "localhost_routes": frozenset({"br0", "docker0"}),
    "settings": {"net/ipv4/ip_forward": "1"},
    "loops": {"/dev/loop7": "/root/disk", "/dev/loop0": "/home/else"},
    "leases": {"net/10.0.0.2": "/leases/net"},
    "paths": frozenset({BOX, "/kubelet/pods/uid1"}),
    "snapshots": frozenset({"containers/c1", "layers/aa", "unpacking/bb"}),
    "ingests": frozenset({"sha256-aa"}),
}


def kernel(**changed: Any) -> Kernel:
    return Kernel(**{**FULL, **changed})


def test_a_pod_that_is_in_both_is_no_finding() -> None:
    assert check(POD, kernel()) == []


def test_an_empty_ledger_and_an_empty_kernel_agree() -> None:
    assert check([], Kernel(mounts=frozenset({"/"}), links=frozenset({"lo"}))) == []


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"mounts": FULL["mounts"] | {"/root/content/x"}}, ("mount", "/root/content/x")),
        ({"mounts": FULL["mounts"] | {"/state/sandboxes/gone/ns/net"}}, ("mount", "/state/sandboxes/gone/ns/net")),
        ({"mounts": FULL["mounts"] | {"/kubelet/pods/uid1/volumes/w"}}, ("mount", "/kubelet/pods/uid1/volumes/w")),
        ({"ports": {"veth1": "br0", "veth9": "br0"}}, ("link", "veth9")),
        ({"marks": {"/unit/kubepods/pod2": "/state/sandboxes"}}, ("cgroup", "/unit/kubepods/pod2")),
        (
            {"elements": FULL["elements"] | {("t", "ports4", "net gone eth0")}},
            ("nft", "inet t ports4: net gone eth0"),
        ),
        ({"localhost_routes": frozenset({"br0", "veth1"})}, ("route", "veth1")),
        ({"shims": frozenset({"box", "gone"})}, ("process", "shim gone")),
        ({"loops": {**FULL["loops"], "/dev/loop8": "/root/x"}}, ("loop", "/dev/loop8")),
        ({"leases": {**FULL["leases"], "net/10.0.0.9": "/leases/net"}}, ("ip", "net/10.0.0.9")),
        ({"paths": FULL["paths"] | {"/state/sandboxes/gone"}}, ("dir", "/state/sandboxes/gone")),
        ({"paths": FULL["paths"] | {"/kubelet/pods/gone"}}, ("dir", "/kubelet/pods/gone")),
        ({"snapshots": FULL["snapshots"] | {"containers/gone"}}, ("snapshot", "containers/gone")),
        ({"snapshots": FULL["snapshots"] | {"unpacking/gone"}}, ("snapshot", "unpacking/gone")),
        ({"ingests": FULL["ingests"] | {"gone"}}, ("ingest", "gone")),
    ],
)
def test_what_is_in_the_kernel_only_has_leaked(changed: dict[str, Any], finding: tuple[str, str]) -> None:
    assert check(POD, kernel(**changed)) == [(LEAKED, *finding)]


@pytest.mark.parametrize(
    ("changed", "findings"),
    [
        ({"mounts": FULL["mounts"] - {f"{BOX}/shm"}}, [("mount", f"{BOX}/shm")]),
        ({"mounts": FULL["mounts"] - {f"{BOX}/ns/net"}}, [("netns", f"{BOX}/ns/net")]),
        ({"mounts": FULL["mounts"] - {"/kubelet/pods/uid1/volumes/v"}}, [("volume", "/kubelet/pods/uid1/volumes/v")]),
        ({"links": frozenset({"lo", "br0"})}, [("link", "veth1")]),
        ({"cgroups": frozenset({"", "/kubepods", "/kubepods/pod1"})}, [("cgroup", "/kubepods/pod1/c1")]),
        ({"elements": frozenset()}, [("nft", "inet t masquerade4 k")]),
        ({"shims": frozenset()}, [("process", "shim box")]),
        ({"processes": frozenset()}, [("process", "77")]),
        ({"localhost_routes": frozenset()}, [("route", "br0")]),
        ({"settings": {}}, [("sysctl", "net/ipv4/ip_forward")]),
        ({"settings": {"net/ipv4/ip_forward": "0"}}, [("sysctl", "net/ipv4/ip_forward")]),
        ({"loops": {}}, [("loop", "/dev/loop7")]),
        ({"leases": {}}, [("ip", "net/10.0.0.2")]),
        ({"paths": frozenset({BOX})}, [("dir", "/kubelet/pods/uid1")]),
        ({"snapshots": frozenset({"layers/aa"})}, [("snapshot", "containers/c1"), ("snapshot", "layers/bb")]),
        ({"ingests": frozenset()}, [("ingest", "sha256-aa")]),
    ],
)
def test_what_is_in_the_ledger_only_is_missing(changed: dict[str, Any], findings: list[tuple[str, str]]) -> None:
    assert check(POD, kernel(**changed)) == [(MISSING, *finding) for finding in findings]


def test_entries_of_a_sandbox_that_is_not_there_are_orphaned() -> None:
    entries = [held("snapshot", "containers/c1")]
    found = check(entries, Kernel(snapshots=frozenset({"containers/c1"})))
    assert found == [(ORPHANED, "snapshot", "containers/c1")]


def test_a_volume_may_be_a_plain_directory() -> None:
    without = FULL["mounts"] - {"/kubelet/pods/uid1/volumes/v"}
    assert check(POD, kernel(mounts=without, paths=FULL["paths"] | {"/kubelet/pods/uid1/volumes/v"})) == []


def test_what_changes_while_fsck_reads_is_no_finding() -> None:
    assert check(POD, kernel(), later=[]) == []
    assert check([], kernel(), later=POD) == []
    assert check(POD, Kernel(), later=[]) == []
    assert check([], Kernel(), later=POD) == []


def test_another_agents_pods_and_another_daemons_cgroups_are_not_ours() -> None:
    theirs = {"/kubepods": "/state/sandboxes", "/kubepods/pod9": "/elsewhere/sandboxes"}
    assert check([], Kernel(paths=frozenset({"/kubelet/pods/uid9"}), marks=theirs)) == []


def test_findings_are_for_people_and_for_scripts() -> None:
    finding = Finding(MISSING, "netns", "/x", "do this", "box")
    assert str(finding) == "missing: netns /x of box; do this"
    assert finding.to_json() == {
        "problem": "missing",
        "kind": "netns",
        "key": "/x",
        "remedy": "do this",
        "holder": "box",
    }
