"""What belongs to the pod: namespaces and their names, shared memory, settings, and what it has of the node's."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from runtime.client import InvalidSpec, NotFound, Pod
from runtime.linux.cgroups import Cgroup
from runtime.linux.mounttable import mounts_beneath
from tests.support.containers import Node, bind, exec_output, logged, mount
from tests.support.processes import eventually


def own(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")


async def test_names_of_the_namespaces(node: Node, pod: Pod) -> None:
    assert pod.netns_path == f"{pod.state_dir}/ns/net"
    for kind in ("net", "ipc", "uts"):
        inode = os.stat(f"{pod.state_dir}/ns/{kind}").st_ino
        assert f"{kind}:[{inode}]" == os.readlink(f"/proc/{pod.shim.pid}/ns/{kind}") != own(kind)


async def test_only_names_and_shared_memory_are_mounted_on_the_host(node: Node, pod: Pod) -> None:
    await node.idle(pod)
    points = {mount.point for mount in mounts_beneath(str(node.directory))}
    assert points == {f"{pod.state_dir}/{name}" for name in ("ns/net", "ns/ipc", "ns/uts", "shm")}


async def test_the_shim_can_be_recognized_and_is_alone_in_its_session(node: Node, pod: Pod) -> None:
    proc = Path(f"/proc/{pod.shim.pid}")
    assert (proc / "comm").read_text() == f"shim:{pod.id[:8]}\n"
    assert (proc / "cmdline").read_bytes().rstrip(b"\0") == f"shim {pod.id}".encode()
    assert os.getsid(pod.shim.pid) == pod.shim.pid
    assert len(os.listdir(proc / "task")) == 1


async def test_the_shim_is_in_none_of_the_containers_cgroups(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    assert pod.shim.pid not in Cgroup(spec.oci["linux"]["cgroupsPath"]).procs()
    assert node.parent not in Path(f"/proc/{pod.shim.pid}/cgroup").read_text()


async def test_state_is_for_root_only(node: Node, pod: Pod) -> None:
    assert os.stat(f"{pod.state_dir}/shim.sock").st_mode & 0o777 == 0o600
    for name in ("ns", "containers"):
        assert os.stat(f"{pod.state_dir}/{name}").st_mode & 0o777 == 0o700
    assert "@" not in "".join(
        line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "shim" in line
    )


async def test_loopback_is_up(node: Node, pod: Pod) -> None:
    server = "(echo hello | nc -l -p 80) & sleep 0.3; nc 127.0.0.1 80 < /dev/null"
    output = await node.sh(pod, f"cat /sys/class/net/lo/flags; {server}")
    assert "hello" in output and "0x9" in output  # IFF_UP | IFF_LOOPBACK


async def test_a_netlink_socket_is_the_pods(node: Node, pod: Pod) -> None:
    for _ in range(2):  # the first was prepared, the second is asked for
        with await pod.netlink() as netlink:
            assert netlink.family == socket.AF_NETLINK
            assert _link_names(netlink) == {"lo"}


def _link_names(netlink: socket.socket) -> set[str]:
    import struct

    netlink.settimeout(5)
    netlink.send(struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))  # RTM_GETLINK, dump
    data = netlink.recv(65536)
    names, at = set(), 0
    while at < len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        place, end = at + 32, at + length
        while kind == 16 and place < end:
            size, attribute = struct.unpack_from("=HH", data, place)
            if attribute == 3:
                names.add(data[place + 4 : place + size - 1].decode())
            place += (size + 3) & ~3
        at += (length + 3) & ~3
    return names


async def test_a_tcp_socket_connects_inside_the_pod(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "sh", "-c", "echo from-the-pod | nc -l -p 8000")
    await pod.start_container(spec)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while True:
            with await pod.tcp_socket(socket.AF_INET) as connection:
                connection.setblocking(False)
                try:
                    await loop.sock_connect(connection, ("127.0.0.1", 8000))
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
                    continue
                assert await loop.sock_recv(connection, 100) == b"from-the-pod\n"
                break


async def test_sysctls(node: Node) -> None:
    settings = {"net.ipv4.ip_unprivileged_port_start": "7", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "33"}
    pod = await node.pod(sysctls=settings)
    await pod.sysctl_net("net/ipv4/conf/lo/forwarding", "1")
    names = [*settings, "net.ipv4.conf.lo.forwarding"]
    output = await node.sh(pod, " ".join(["cat", *[f"/proc/sys/{name.replace('.', '/')}" for name in names]]))
    assert output.split() == ["7", "1", "33", "1"]
    assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() != "7\n"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"sysctls": {"kernel.core_pattern": "|/evil"}}, "not namespaced"),
        ({"sysctls": {"net.ipv4.ip_forward": "1"}, "net": "node"}, "no net namespace of its own"),
        ({"sysctls": {"kernel.shmmax": "1"}, "ipc": "node"}, "no ipc namespace of its own"),
        ({"sysctls": {"net.../../kernel.core_pattern": "x"}}, "not the name"),
        ({"sysctls": {"net.ipv4.a+b": "x"}}, "not the name"),
        ({"hostname": "h" * 65}, "64 bytes"),
    ],
)
async def test_refused_sandboxes_leave_nothing(node: Node, fields: dict[str, Any], why: str) -> None:
    spec = node.sandbox(**fields)
    with pytest.raises(InvalidSpec, match=why):
        await node.runtime.create_sandbox(spec)
    assert not mounts_beneath(spec.state_dir)
    assert not Cgroup(spec.cgroup_parent).exists()


@pytest.mark.parametrize("userns", [None, {"uid": [[0, 200_000, 65_536]], "gid": [[0, 200_000, 65_536]]}])
async def test_a_sysctl_value_that_the_kernel_refuses(node: Node, userns: dict[str, list[list[int]]] | None) -> None:
    spec = node.sandbox(sysctls={"net.ipv4.ip_forward": "not a number"}, userns=userns)
    with pytest.raises(InvalidSpec, match=r"'not a number' for sysctl net\.ipv4\.ip_forward: Invalid argument"):
        await node.runtime.create_sandbox(spec)
    assert not mounts_beneath(spec.state_dir)


async def test_shared_memory_is_the_pods(node: Node) -> None:
    pod = await node.pod(shm_size=1 << 20)
    await node.sh(pod, "echo shared > /dev/shm/x")
    output = await node.sh(pod, "cat /dev/shm/x; grep ' /dev/shm ' /proc/self/mounts")
    assert output.startswith("shared\n") and "size=1024k" in output


async def test_a_shared_pid_namespace(node: Node) -> None:
    pod = await node.pod(pid="pod")
    first = await node.idle(pod)
    pid = (await pod.container_status(first.id))["pid"]
    output = await node.sh(pod, "cat /proc/1/comm; ps; readlink /proc/self/ns/pid")
    assert output.startswith("pod-init\n") and "sleep 1000" in output
    assert output.splitlines()[-1] == os.readlink(f"/proc/{pid}/ns/pid") != own("pid")
    _, seen = await exec_output(pod, first, "ps")
    assert "pod-init" in seen


async def test_the_pods_init_reaps(node: Node) -> None:
    pod = await node.pod(pid="pod")
    spec = node.container(pod, "sh", "-c", "(sleep 0.1 &) ; sleep 0.5; ps; sleep 100")
    await pod.start_container(spec)
    await eventually(lambda: "ps" in logged(spec))
    assert "[sleep]" not in logged(spec)


async def test_the_pods_init_holds_nothing(node: Node) -> None:
    pod = await node.pod(pid="pod")
    names = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]
    sets = dict.fromkeys(("bounding", "effective", "permitted"), names)
    script = "grep -E 'Cap|Uid|NoNew' /proc/1/status; ls /proc/1/fd /proc/1/root/ | sort; ls -l /proc/1/root/"
    output = await node.sh(pod, script, process={"capabilities": sets})
    assert output.count("0000000000000000") == 5
    assert "Uid:\t65534\t65534\t65534\t65534" in output
    assert "NoNewPrivs:\t1" in output
    assert output.splitlines()[-3:] == ["/proc/1/fd:", "/proc/1/root/:", "total 0"]


async def test_containers_end_with_the_pods_init(node: Node) -> None:
    pod = await node.pod(pid="pod")
    spec = await node.idle(pod)
    (pid,) = Cgroup(f"{node.parent}/{pod.id}/{pod.id}").procs()
    os.kill(pid, 9)
    assert (await node.exited(spec)).exit_code == 137


async def test_the_nodes_pid_namespace(node: Node) -> None:
    pod = await node.pod(pid="node")
    spec = await node.idle(pod)
    assert await node.sh(pod, "readlink /proc/self/ns/pid") == own("pid") + "\n"
    assert (await exec_output(pod, spec, "readlink", "/proc/self/ns/pid"))[1] == own("pid") + "\n"


async def test_all_of_a_container_in_the_nodes_pid_namespace_ends_with_it(node: Node) -> None:
    pod = await node.pod(pid="node")
    spec = node.container(pod, "sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 & exit 7")
    await pod.start_container(spec)
    assert (await node.exited(spec)).exit_code == 7
    await pod.remove_container(spec.id)
    assert not Cgroup(spec.oci["linux"]["cgroupsPath"]).exists()


async def test_the_nodes_network_and_hostname(node: Node) -> None:
    pod = await node.pod(net="node", hostname="ignored")
    assert pod.netns_path == ""
    output = await node.sh(pod, "readlink /proc/self/ns/net; readlink /proc/self/ns/uts; hostname")
    assert output.split() == [own("net"), own("uts"), socket.gethostname()]


async def test_a_pod_without_any_namespace_of_its_own(node: Node) -> None:
    pod = await node.pod(net="node", ipc="node", pid="node")
    kinds = ("net", "ipc", "uts", "pid")
    mounts = [bind("/dev/shm", "/dev/shm"), mount("/proc", "proc"), mount("/dev", "tmpfs")]
    script = f"for n in {' '.join(kinds)}; do readlink /proc/self/ns/$n; done"
    output = await node.sh(pod, script, all_mounts=mounts[1:] + mounts[:1])
    assert output.split() == [own(kind) for kind in kinds]
    assert not mounts_beneath(pod.state_dir)


async def test_the_nodes_ipc(node: Node) -> None:
    pod = await node.pod(ipc="node")
    mounts = [entry for entry in node.container(pod, "true").oci["mounts"] if entry["destination"] != "/dev/shm"]
    output = await node.sh(pod, "readlink /proc/self/ns/ipc", all_mounts=[*mounts, bind("/dev/shm", "/dev/shm")])
    assert output.split() == [own("ipc")]
    assert not os.path.exists(f"{pod.state_dir}/shm")


async def test_a_container_in_anothers_pid_namespace(node: Node, pod: Pod) -> None:
    target = await node.idle(pod)
    pid = (await pod.container_status(target.id))["pid"]
    output = await node.sh(pod, "readlink /proc/self/ns/pid; ps", pid_target=target.id)
    assert output.startswith(os.readlink(f"/proc/{pid}/ns/pid")) and "sleep 1000" in output
    debugger = await node.idle(pod, pid_target=target.id)
    assert (await exec_output(pod, debugger, "readlink", "/proc/self/ns/pid"))[1].split()[0] in output
    with pytest.raises(NotFound, match="target container nobody"):
        await node.run(pod, "true", pid_target="nobody")


async def test_cgroup_of_the_pod_with_limits(node: Node) -> None:
    spec = node.sandbox(resources={"pids": {"limit": 12}})
    pod = await node.runtime.create_sandbox(spec)
    node.pods.append(pod)
    cgroup = Cgroup(spec.cgroup_parent)
    assert Path(cgroup.directory("pids"), "pids.max").read_text() == "12\n"
    await pod.stop()
    assert not cgroup.exists()
    assert not Cgroup(node.parent).exists()


async def test_a_cgroup_that_somebody_else_made_stays(node: Node) -> None:
    spec = node.sandbox()
    cgroup = Cgroup(spec.cgroup_parent)
    cgroup.create()
    try:
        pod = await node.runtime.create_sandbox(spec)
        await pod.start_container(node.container(pod, "true"))
        await pod.stop()
        assert cgroup.exists()
    finally:
        Cgroup(node.parent).remove()


async def test_pods_that_end_together_share_the_removal_of_what_they_share(node: Node) -> None:
    """A hierarchy in which another pod's end was faster keeps nobody from going on in the next."""
    spec = node.sandbox()
    pod = await node.runtime.create_sandbox(spec)
    for cgroup in (Cgroup(spec.cgroup_parent), shared := Cgroup(node.parent)):
        for directory in cgroup.directories[:-1]:  # v2 is the last; where it is the only one, nothing can be half gone
            os.rmdir(directory)
    await pod.stop()
    assert not shared.exists()
