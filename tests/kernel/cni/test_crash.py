"""kill -9 at every step of an attachment's life: what is left in the kernel and on disk is undone at the next start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cni.default import default_conflist
from cni.errors import CniError
from cni.worker import FAILPOINTS
from runtime.linux import failpoints
from tests.kernel.cni.conftest import SUBNET, SUBNET6, TABLE, Node
from tests.support.netns import Netns, listen, output, reaches

ROOT = Path(__file__).parents[3]
PORT = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
VICTIM = "f" * 64


def conflist() -> dict[str, Any]:
    return default_conflist("br0", [SUBNET, SUBNET6], nft_table=TABLE)


def run_victim(node: Node, pod: Netns, armed: str) -> int:
    """The exit status of a process that attaches and detaches `pod` with these failpoints armed."""
    doc = conflist()
    doc["plugins"][0]["ipam"]["dataDir"] = str(node.root / "cache" / "networks")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.cni_victim",
            node.root,
            pod.path,
            VICTIM,
            json.dumps(doc),
            json.dumps(PORT),
        ],
        cwd=ROOT,
        env={**os.environ, failpoints.VARIABLE: armed},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def host_links() -> set[str]:
    return {item["ifname"] for item in json.loads(output("ip", "-j", "link")) if item["ifname"].startswith("veth")}


def leases(node: Node) -> set[str]:
    return {path.name for path in node.leases.iterdir() if path.name != "lock" and "last" not in path.name}


def ports() -> str:
    return output("nft", "list", "ruleset")


@pytest.mark.parametrize("name", FAILPOINTS)
async def test_killed(name: str, node: Node) -> None:
    cni = node.cni(conflist())
    neighbour, living = node.pod(capability_args={"portMappings": [{"hostPort": 9090, "containerPort": 80}]})
    result = await cni.add(living)
    # The network's rules are there already for the living pod, so the victim passes the place where they are made
    # only when somebody has flushed them.
    if name == "cni.bridge.after_masquerade":
        output("nft", "flush", "set", "inet", TABLE, "masquerade4")
    pod = node.pod()[0]
    assert run_victim(node, pod, f"{name}=kill") == -signal.SIGKILL, f"the victim never came to {name}"

    again = node.cni(conflist())
    assert await again.recover([living.container_id]) == []
    assert host_links() == {result.interfaces[1].name}
    assert leases(node) == {"10.201.0.2", "fd00:c9::2"}
    assert "8080" not in ports() and "9090" in ports()
    assert node.ledger.entries(holder=VICTIM) == []
    assert [path.name for path in (node.root / "cache/results").iterdir()] == [f"br0-{living.container_id}-eth0"]

    fresh, attachment = node.pod(capability_args=PORT)
    given = {str(address.ip) for address in (await again.add(attachment)).pod_addresses("eth0")}
    assert not given & {"10.201.0.2", "fd00:c9::2"}
    with fresh.do(lambda: listen("0.0.0.0", 80)) as server:
        assert reaches("127.0.0.1", 8080, server) == "10.201.0.1"
    with neighbour.do(lambda: listen("0.0.0.0", 80)) as server:
        assert reaches("127.0.0.1", 9090, server) == "10.201.0.1"


async def test_not_killed(node: Node) -> None:
    """The victim of these tests is a good one: left alone, it leaves nothing."""
    assert run_victim(node, node.pod()[0], "") == 0
    assert (host_links(), leases(node), node.ledger.entries(holder=VICTIM)) == (set(), set(), [])


@pytest.mark.parametrize(
    "name", [name for name in FAILPOINTS if name.startswith(("cni.bridge", "cni.portmap", "cni.host"))]
)
async def test_failed(name: str, node: Node) -> None:
    """A step that fails: ADD takes everything back; DEL can be done again."""
    cni = node.cni(conflist())
    _, attachment = node.pod(capability_args=PORT)
    in_add = name not in ("cni.bridge.after_cut", "cni.host_local.after_release", "cni.portmap.after_unmap")
    if not in_add:
        await cni.add(attachment)
    failpoints.arm(f"{name}=error@1")
    try:
        with pytest.raises((failpoints.FailpointError, CniError)):
            await (cni.add(attachment) if in_add else cni.delete(attachment))
    finally:
        failpoints.arm("")
    if not in_add:
        await cni.delete(attachment)
    assert leases(node) == set()
    assert "8080" not in ports()
    assert {entry.kind for entry in node.ledger.entries(holder=attachment.container_id)} <= {"link"}


async def test_after_a_reboot_the_addresses_are_free(node: Node) -> None:
    """The ledger then knows of attachments and addresses on disk, and the kernel of nothing."""
    cni = node.cni(conflist())
    pod, attachment = node.pod(capability_args=PORT)
    await cni.add(attachment)
    pod.close()
    output("ip", "link", "del", "br0")
    output("nft", "flush", "ruleset")
    node.ledger.strike(*(entry for entry in node.ledger.entries() if entry.kind in ("link", "nft", "route", "sysctl")))
    again = node.cni(conflist())
    assert await again.recover([]) == []
    assert leases(node) == set() and node.ledger.entries() == []
    assert str((await again.add(node.pod()[1])).ips[0].address.ip) == "10.201.0.3"


async def test_without_the_ledger_the_cache_knows(node: Node) -> None:
    cni = node.cni(conflist())
    _, attachment = node.pod(capability_args=PORT)
    await cni.add(attachment)
    node.ledger.strike(*node.ledger.entries())
    assert await node.cni(conflist()).recover([]) == []
    assert leases(node) == set() and "8080" not in ports()


async def test_a_lease_that_nobody_knows_of_is_collected(node: Node) -> None:
    """As of a database that was restored: GC compares the directory with what is attached."""
    cni = node.cni(conflist())
    _, attachment = node.pod()
    await cni.add(attachment)
    (node.leases / "10.201.0.99").write_bytes(b"ghost\r\neth0")
    (node.leases / "10.201.0.98").write_bytes(b"")
    assert await node.cni(conflist()).recover([attachment.container_id]) == []
    assert leases(node) == {"10.201.0.2", "fd00:c9::2"}


async def test_one_that_cannot_be_undone_is_reported_and_kept(node: Node) -> None:
    node.bin_dir.mkdir()
    bad = node.bin_dir / "stubborn"
    bad.write_text(
        '#!/bin/sh\n[ "$CNI_COMMAND" = DEL ] && echo \'{"code": 11, "msg": "not now"}\' && exit 1\necho "{}"\n'
    )
    bad.chmod(0o755)
    chain = conflist()
    chain["plugins"].append({"type": "stubborn"})
    cni = node.cni(chain)
    _, one = node.pod()
    await cni.add(one)
    failed = await node.cni(conflist()).recover([])
    assert len(failed) == 1 and one.key in failed[0] and "not now" in failed[0]
    assert leases(node) == {"10.201.0.2", "fd00:c9::2"}, "its address is not free while a plugin may still use it"
    bad.write_text("#!/bin/sh\necho '{}'\n")
    assert await node.cni(conflist()).recover([]) == []
    assert leases(node) == set()
