"""Our plugins beside the reference ones (Debian's containernetworking-plugins), in every position of a chain."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cni.builtin import BUILTIN
from cni.errors import CniError
from cni.install import install
from tests.kernel.cni.conftest import SUBNET, TABLE, Node
from tests.support.netns import Netns, listen, output, reaches

REFERENCE = Path("/usr/lib/cni")
NET = {"cniVersion": "1.0.0", "name": "mixed"}

needs_reference = pytest.mark.skipif(
    not (REFERENCE / "bridge").exists(),
    reason="needs the reference plugins: apt-get install containernetworking-plugins",
)


def ipam(root: Path) -> dict[str, Any]:
    return {"type": "host-local", "subnet": SUBNET, "dataDir": str(root / "leases"), "routes": [{"dst": "0.0.0.0/0"}]}


def bridge(root: Path) -> dict[str, Any]:
    return {"type": "bridge", "bridge": "br0", "isGateway": True, "nftTable": TABLE, "ipam": ipam(root)}


def run_plugin(directory: Path, kind: str, command: str, config: dict[str, Any], pod: Netns, **extra: str) -> Any:
    """What any runtime does; the JSON that the plugin printed, with its exit status."""
    environment = {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": pod.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(directory),
        **extra,
    }
    done = subprocess.run(
        [directory / kind],
        input=json.dumps(config),
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A plugin directory with our programs only."""
    install(tmp_path / "ours")
    return tmp_path / "ours"


@pytest.fixture
def mixed(tmp_path: Path, ours: Path) -> Callable[..., Path]:
    """A plugin directory of our programs, but the named ones of the reference project."""

    def make(*reference: str) -> Path:
        directory = tmp_path / f"mixed-{'-'.join(reference)}"
        directory.mkdir()
        for name in ("bridge", "host-local", "loopback", "portmap"):
            (directory / name).symlink_to((REFERENCE if name in reference else ours) / name)
        return directory

    return make


@needs_reference
@pytest.mark.parametrize("reference", [(), ("host-local",), ("bridge",), ("bridge", "host-local")], ids="-".join)
def test_bridge_with_host_local_as_programs(
    reference: tuple[str, ...], mixed: Callable[..., Path], netns: Callable[[], Netns], tmp_path: Path
) -> None:
    directory, pod = mixed(*reference), netns()
    config = NET | bridge(tmp_path)
    status, result = run_plugin(directory, "bridge", "ADD", config, pod)
    assert status == 0, result
    assert result["ips"] == [{"address": "10.201.0.2/24", "gateway": "10.201.0.1", "interface": 2}]
    with pod.do(lambda: listen("0.0.0.0", 80)) as server:
        assert reaches("10.201.0.2", 80, server) == "10.201.0.1"
    assert (tmp_path / "leases" / "mixed" / "10.201.0.2").read_bytes() == b"c1\r\neth0"
    if "bridge" not in reference:
        status, error = run_plugin(directory, "bridge", "ADD", config, pod)
        assert status == 1 and "interface eth0 already" in error["msg"]
    assert run_plugin(directory, "bridge", "CHECK", {**config, "prevResult": result}, pod) == (0, None)
    assert run_plugin(directory, "bridge", "DEL", {**config, "prevResult": result}, pod) == (0, None)
    assert "eth0" not in pod.run("ip", "link")
    assert not (tmp_path / "leases" / "mixed" / "10.201.0.2").exists()
    assert run_plugin(directory, "bridge", "DEL", config, pod) == (0, None)


@needs_reference
def test_each_undoes_and_goes_on_with_what_the_other_did(
    mixed: Callable[..., Path], netns: Callable[[], Netns], tmp_path: Path
) -> None:
    config = NET | bridge(tmp_path)
    ours, reference = mixed(), mixed("bridge", "host-local")
    for adder, deleter, address in ((ours, reference, "10.201.0.2/24"), (reference, ours, "10.201.0.3/24")):
        pod = netns()
        status, result = run_plugin(adder, "bridge", "ADD", config, pod)
        assert status == 0, result
        assert result["ips"][0]["address"] == address
        assert run_plugin(deleter, "bridge", "CHECK", {**config, "prevResult": result}, pod) == (0, None)
        assert run_plugin(deleter, "bridge", "DEL", {**config, "prevResult": result}, pod) == (0, None)
        assert "eth0" not in pod.run("ip", "link")
        assert {path.name for path in (tmp_path / "leases/mixed").iterdir()} == {"lock", "last_reserved_ip.0"}


@needs_reference
@pytest.mark.parametrize(
    "builtin", [("host-local",), ("bridge",), ("bridge", "host-local", "portmap"), ()], ids="-".join
)
async def test_chains_of_built_in_plugins_and_programs(node: Node, builtin: tuple[str, ...], ours: Path) -> None:
    node.bin_dir.mkdir()
    (node.bin_dir / "portmap").symlink_to(ours / "portmap")
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "nftTable": TABLE}
    tuning = {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}
    conflist = NET | {"plugins": [bridge(node.root), tuning, portmap]}
    cni = node.cni(conflist, builtin={kind: BUILTIN[kind] for kind in builtin})
    mapping = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    pod, attachment = node.pod(
        capability_args={"portMappings": mapping}, args={"IgnoreUnknown": "1", "K8S_POD_NAME": "web"}
    )
    await cni.status()
    result = await cni.add(attachment)
    assert str(result.pod_addresses("eth0")[0]) == "10.201.0.2/24"
    assert pod.run("cat", "/proc/sys/net/core/somaxconn").strip() == "500"
    with pod.do(lambda: listen("0.0.0.0", 80)) as server:
        assert reaches("127.0.0.1", 8080, server) == "10.201.0.1"
    await cni.check(attachment)
    await cni.delete(attachment)
    assert "8080" not in output("nft", "list", "table", "inet", TABLE)
    assert {path.name for path in (node.root / "leases/mixed").iterdir()} == {"lock", "last_reserved_ip.0"}


@needs_reference
async def test_an_option_that_ours_lacks_is_left_to_the_reference_plugin(node: Node) -> None:
    conflist = NET | {"plugins": [bridge(node.root) | {"ipMasq": True, "ipMasqBackend": "iptables"}]}
    cni = node.cni(conflist)
    _, attachment = node.pod()
    result = await cni.add(attachment)
    assert len(result.ips) == 1
    assert "-j MASQUERADE" in output("iptables-save", "-t", "nat")
    await cni.delete(attachment)
    assert {path.name for path in (node.root / "leases/mixed").iterdir()} == {"lock", "last_reserved_ip.0"}


async def test_a_reference_plugin_that_is_not_installed_is_named(node: Node) -> None:
    cni = node.cni(NET | {"plugins": [{"type": "bridge", "bridge": "br0", "ipam": {"type": "dhcp-of-mars"}}]})
    _, attachment = node.pod()
    with pytest.raises(CniError, match=r"'dhcp-of-mars' is not installed; no executable of that name in .*/bin"):
        await cni.add(attachment)
    with pytest.raises(CniError, match="'dhcp-of-mars' is not installed"):
        await cni.status()


def test_loopback_and_portmap_as_programs(ours: Path, netns: Callable[[], Netns], tmp_path: Path) -> None:
    pod = netns()
    config = NET | {"type": "loopback"}
    status, result = run_plugin(ours, "loopback", "ADD", config, pod)
    assert (status, result["interfaces"][0]["name"]) == (0, "lo")
    assert {ip["address"] for ip in result["ips"]} == {"127.0.0.1/8", "::1/128"}
    assert run_plugin(ours, "loopback", "CHECK", config, pod) == (0, None)
    assert run_plugin(ours, "loopback", "DEL", config, pod) == (0, None)

    status, result = run_plugin(ours, "bridge", "ADD", NET | bridge(tmp_path), pod)
    assert status == 0, result
    mapping = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    config = NET | {"type": "portmap", "nftTable": TABLE, "runtimeConfig": mapping, "prevResult": result}
    status, passed_on = run_plugin(ours, "portmap", "ADD", config, pod)
    assert (status, passed_on) == (0, result)
    with pod.do(lambda: listen("0.0.0.0", 80)) as server:
        assert reaches("127.0.0.1", 8080, server) == "10.201.0.1"
    assert run_plugin(ours, "portmap", "CHECK", config, pod) == (0, None)
    assert run_plugin(ours, "portmap", "DEL", config, pod) == (0, None)
    status, error = run_plugin(ours, "portmap", "CHECK", config, pod)
    assert status == 1 and "mapping of tcp . 8080 is missing" in error["msg"]


def test_gc_and_status_as_programs(ours: Path, netns: Callable[[], Netns], tmp_path: Path) -> None:
    pod = netns()
    config = {
        **NET,
        "cniVersion": "1.1.0",
        "type": "bridge",
        "bridge": "br0",
        "ipam": ipam(tmp_path) | {"subnet": "10.201.0.0/30"},
    }
    assert run_plugin(ours, "bridge", "STATUS", config, pod) == (0, None)
    assert run_plugin(ours, "bridge", "ADD", config, pod)[0] == 0
    status, error = run_plugin(ours, "bridge", "STATUS", config, pod)
    assert (status, error["code"]) == (1, 50) and "are in use" in error["msg"]
    keep = [{"containerID": "c1", "ifname": "eth0"}]
    assert run_plugin(ours, "bridge", "GC", {**config, "cni.dev/valid-attachments": keep}, pod) == (0, None)
    assert (tmp_path / "leases/mixed/10.201.0.2").exists()
    assert run_plugin(ours, "bridge", "GC", {**config, "cni.dev/valid-attachments": []}, pod) == (0, None)
    assert not (tmp_path / "leases/mixed/10.201.0.2").exists()


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_every_version_is_answered_in_kind(
    version: str, ours: Path, netns: Callable[[], Netns], tmp_path: Path
) -> None:
    pod = netns()
    status, result = run_plugin(ours, "bridge", "ADD", NET | bridge(tmp_path) | {"cniVersion": version}, pod)
    assert (status, result["cniVersion"]) == (0, version)
    if version == "0.2.0":
        assert result["ip4"]["ip"] == "10.201.0.2/24" and result["ip4"]["routes"] == [{"dst": "0.0.0.0/0"}]
    else:
        assert result["ips"][0].get("version") == (None if version.startswith("1") else "4")


def test_errors_are_json_with_a_code(ours: Path, netns: Callable[[], Netns], tmp_path: Path) -> None:
    pod = netns()
    config = NET | bridge(tmp_path)
    for command, changed, extra, code, reason in (
        ("ADD", {"cniVersion": "9.9.9"}, {}, 1, "incompatible CNI versions"),
        ("ADD", {"ipMasqBackend": "iptables"}, {}, 2, "ipMasqBackend='iptables'"),
        ("ADD", {"vlan": 4095}, {}, 7, "vlan 4095"),
        ("ADD", {}, {"CNI_CONTAINERID": ""}, 4, "CNI_CONTAINERID"),
        ("ADD", {}, {"CNI_CONTAINERID": "../x"}, 4, "container id '../x'"),
        ("ADD", {}, {"CNI_IFNAME": "a/b"}, 4, "interface name 'a/b'"),
        ("ADD", {}, {"CNI_ARGS": "novalue"}, 4, "CNI_ARGS 'novalue'"),
        ("ADD", {"name": "../../etc"}, {}, 7, "network name '../../etc'"),
        ("ADD", {"ipam": {"type": "../../bin/sh"}}, {}, 7, "plugin type"),
        ("ADD", {}, {"CNI_NETNS": "/nowhere"}, 8, "/nowhere"),
        ("ADD", {}, {"CNI_NETNS": "/proc/self/ns/net"}, 8, "it must be the pod's"),
        ("CHECK", {"cniVersion": "0.3.1"}, {}, 1, "does not allow CHECK"),
        ("GC", {}, {}, 1, "does not allow GC"),
        ("FROB", {}, {}, 4, "unknown CNI_COMMAND: FROB"),
    ):
        status, error = run_plugin(ours, "bridge", command, {**config, **changed}, pod, **extra)
        assert (status, error["code"]) == (1, code), error
        assert reason in error["msg"] + error.get("details", "")
    assert "br0" not in output("ip", "link")


def test_version_and_no_command(ours: Path, netns: Callable[[], Netns]) -> None:
    pod = netns()
    for kind in ("bridge", "host-local", "loopback", "portmap"):
        status, answer = run_plugin(ours, kind, "VERSION", {}, pod)
        assert status == 0 and "1.1.0" in answer["supportedVersions"] and "0.3.1" in answer["supportedVersions"]
    done = subprocess.run(
        [ours / "bridge"], capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0 and "CNI plugin bridge" in done.stderr


@needs_reference
def test_both_give_addresses_of_one_directory_at_the_same_time(
    mixed: Callable[..., Path], netns: Callable[[], Netns], tmp_path: Path
) -> None:
    pod = netns()
    config = NET | {"type": "bridge", "ipam": ipam(tmp_path)}

    def take(directory: Path, number: int) -> str:
        status, result = run_plugin(
            directory, "host-local", "ADD", config, pod, CNI_CONTAINERID=f"{directory.name}{number}"
        )
        assert status == 0, result
        return str(result["ips"][0]["address"])

    directories = (mixed(), mixed("host-local"))
    with ThreadPoolExecutor(6) as threads:
        jobs = [threads.submit(take, directories[number % 2], number) for number in range(24)]
        given = [job.result() for job in jobs]
    assert len(set(given)) == 24
