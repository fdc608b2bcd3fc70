"""What a pod can do to its neighbours and to the host over its network, through crid's own default network.

Router advertisements (N2), traffic to other hosts' ports (N3) and the host's loopback (N4) are also replayed packet by
packet in tests/kernel/cni.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.attacker import capabilities
from tests.support.crid import Crid


async def address(crid: Crid, sandbox: str) -> str:
    return str((await crid.cri.PodSandboxStatus(pod_sandbox_id=sandbox)).status.network.ip)


@pytest.mark.parametrize("kind", ["../evil", "{base}/evil", "x/../../evil", "..", "", "bridge\n"])
async def test_a_plugin_is_a_name_and_no_path(crid: Crid, canary: Path, kind: str) -> None:
    """N1, CVE-2021-20206: nothing outside of the plugin directories is executed; the file counts as absent."""
    program = crid.base / "evil"
    program.write_text(f"#!/bin/sh\ntouch {canary}/ran\n")
    program.chmod(0o755)
    conflist = crid.base / "net.d/00-hostile.conflist"
    plugins = [{"type": kind.replace("{base}", str(crid.base))}]
    conflist.write_text(json.dumps({"cniVersion": "1.0.0", "name": "x", "plugins": plugins}))
    try:
        with contextlib.suppress(CriError):
            await crid.run_pod()
    finally:
        conflist.unlink()
    await crid.run_pod()


async def test_pods_do_not_listen_to_routers(crid: Crid, hostile: str) -> None:
    """N2, CVE-2020-10749."""
    id = await crid.run(await crid.run_pod(), hostile, ["sleep", "100"])
    accepted = await crid.exec(id, "sh", "-c", "cat /proc/sys/net/ipv6/conf/[de]*/accept_ra")
    if accepted[0] == 0:  # else the host has no IPv6
        assert set(accepted[1].split()) == {"0"}
    bridge = Path(f"/proc/sys/net/ipv6/conf/{crid.bridge}/accept_ra")
    assert not bridge.exists() or bridge.read_text().strip() == "0"


async def test_the_hosts_loopback_is_not_a_neighbours(crid: Crid, hostile: str) -> None:
    """N4, CVE-2020-8558: packets to 127.0.0.1 that come in on the pods' bridge, also where host ports are forwarded."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(0.1)
        mapping = api.PortMapping(host_port=free_port(), container_port=80)
        await crid.run_pod(port_mappings=[mapping])
        id = await crid.run(await crid.run_pod(), hostile, ["sleep", "100"], linux=capabilities("NET_ADMIN", "NET_RAW"))
        script = (
            "for f in all eth0 lo; do echo 1 > /proc/sys/net/ipv4/conf/$f/route_localnet; done 2>/dev/null;"
            "gw=$(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'); ip addr del 127.0.0.1/8 dev lo;"
            f"ip route add 127.0.0.1/32 via $gw dev eth0; echo steal | nc -w 1 127.0.0.1 {port}; ip route"
        )
        await crid.exec(id, "sh", "-c", script)
        with pytest.raises(TimeoutError):
            server.accept()


def free_port() -> int:
    with socket.create_server(("", 0)) as taken:
        return int(taken.getsockname()[1])


async def test_a_host_port_is_one_port_of_this_host(crid: Crid, hostile: str) -> None:
    """N3: CVE-2019-9946, CVE-2025-67499: a pod's mapping does not catch what is for other addresses, or other ports."""
    port = free_port()
    thief = await crid.run_pod(port_mappings=[api.PortMapping(host_port=port, container_port=8080)])
    await crid.run(thief, hostile, ["sh", "-c", "while true; do echo thief | nc -l -p 8080; done"])
    honest = await crid.run_pod()
    await crid.run(honest, hostile, ["sh", "-c", f"while true; do echo honest | nc -l -p {port}; done"])
    client = await crid.run(await crid.run_pod(), hostile, ["sleep", "100"])
    target = await address(crid, honest[0])
    for _ in range(50):
        answer = (await crid.exec(client, "sh", "-c", f"nc -w 1 {target} {port} </dev/null"))[1]
        if answer:
            break
        await asyncio.sleep(0.05)
    assert answer == "honest\n"


async def test_listeners_of_the_runtime_are_few_and_local(crid: Crid) -> None:
    """K3, CVE-2019-11248: no profiler, no debugger, nothing on an address that others reach."""
    assert crid.process is not None
    own = {Path(fd).readlink().name for fd in Path(f"/proc/{crid.process.pid}/fd").iterdir() if _is_socket(fd)}
    listening = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{crid.process.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                listening.append(fields[1].partition(":")[0])
    assert listening == ["0100007F"]  # the streaming server, at 127.0.0.1


def _is_socket(fd: Path) -> bool:
    try:
        return str(fd.readlink()).startswith("socket:")
    except OSError:  # closed meanwhile
        return False
