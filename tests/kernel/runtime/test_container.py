"""What a container's process finds around it, as the kernel tells it from inside."""

from __future__ import annotations

import os
import resource
import struct
from pathlib import Path
from typing import Any

import pytest

from runtime.client import Pod
from runtime.linux.caps import NAMES, bounding_mask, mask
from runtime.linux.overlay import OverlayRootfs
from tests.support.containers import CAPABILITIES, Node, bind, logged, mount


async def test_is_pid_one_of_its_own_namespaces(node: Node, pod: Pod) -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    script = "echo $$; hostname; for n in " + " ".join(kinds) + "; do readlink /proc/self/ns/$n; done"
    first, host, *namespaces = (await node.sh(pod, script)).splitlines()
    assert (first, host) == ("1", "pod-host")
    for kind, namespace in zip(kinds, namespaces, strict=True):
        assert namespace != os.readlink(f"/proc/self/ns/{kind}")


async def test_containers_of_a_pod_share_net_ipc_and_uts_but_not_pid(node: Node, pod: Pod) -> None:
    pids = [(await pod.container_status((await node.idle(pod)).id))["pid"] for _ in range(2)]
    kinds = ("net", "ipc", "uts", "pid", "mnt", "cgroup")
    first, second = ([os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds] for pid in pids)
    assert first[:3] == second[:3]
    assert not set(first[3:]) & set(second[3:])


async def test_only_the_three_standard_fds_are_open(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    pid = (await pod.container_status(spec.id))["pid"]
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"


async def test_devices_and_links(node: Node, pod: Pod) -> None:
    script = "cd /dev; stat -c '%n %a %t:%T %F' null zero full random urandom tty;"
    script += "for l in fd stdin stdout stderr ptmx; do readlink $l; done"
    lines = (await node.sh(pod, script)).splitlines()
    numbers = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}
    assert lines[:6] == [f"{name} 666 {number} character special file" for name, number in numbers.items()]
    assert lines[6:] == ["/proc/self/fd", *[f"/proc/self/fd/{n}" for n in range(3)], "pts/ptmx"]


async def test_a_device_of_the_config(node: Node, pod: Pod) -> None:
    device = {"path": "/dev/deep/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8}
    output = await node.sh(pod, "stat -c '%a %t:%T %u %g' /dev/deep/fuse", linux={"devices": [device]})
    assert output == "640 a:e5 7 8\n"


async def test_every_device_of_the_host_for_a_privileged_container(node: Node, pod: Pod) -> None:
    names = await node.sh(pod, "cd /dev; ls", devices_all=True)
    skipped = {"pts", "shm", "mqueue", "console", "ptmx", "fd", "stdin", "stdout", "stderr"}
    wanted = {name for name in os.listdir("/dev") if not os.path.islink(f"/dev/{name}")} - skipped
    assert wanted - {name for name in wanted if os.path.isdir(f"/dev/{name}")} <= set(names.split())


async def test_mounts_are_the_asked_ones_and_none_of_the_host(node: Node, pod: Pod) -> None:
    output = await node.sh(pod, "cat /proc/self/mountinfo")
    points = {line.split()[4]: line.split() for line in output.splitlines()}
    wanted = {"/", "/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys", "/sys/fs/cgroup"}
    assert wanted <= points.keys()
    beneath = tuple(f"{path}/" for path in ("/proc", "/sys"))
    assert all(point in wanted or point.startswith(beneath) for point in points)
    assert points["/sys"][5].split(",")[0] == "ro"
    assert "nosuid,nodev,noexec" in points["/dev/shm"][5]


async def test_masked_paths_show_nothing(node: Node, pod: Pod) -> None:
    linux = {"maskedPaths": ["/proc/timer_list", "/proc/acpi", "/sys/firmware", "/proc/not-there", "/bin/ls"]}
    output = await node.sh(pod, "cat /proc/timer_list; echo /sys/firmware/* ; wc -c < /bin/ls", linux=linux)
    assert output == "/sys/firmware/*\n0\n"


async def test_a_mask_can_not_be_written_through_nor_changed(node: Node, pod: Pod) -> None:
    script = "chmod 600 /proc/timer_list 2>&1 && exit 1; mkdir /sys/firmware/x 2>&1 && exit 1; exit 0"
    output = await node.sh(pod, script, linux={"maskedPaths": ["/proc/timer_list", "/sys/firmware"]})
    assert output.count("Read-only file system") == 2


async def test_readonly_paths_and_readonly_root(node: Node, pod: Pod) -> None:
    script = (
        "echo 1 2>&1 > /proc/sys/kernel/panic && exit 1; touch /x 2>&1 && exit 1;"
        "touch /dev/x && touch /dev/shm/x && rm /dev/shm/x"
    )
    output = await node.sh(pod, script, rootfs_readonly=True)
    assert output.count("Read-only file system") == 2


async def test_capabilities_are_exactly_the_asked_ones_and_inheritable_is_empty(node: Node, pod: Pod) -> None:
    output = await node.sh(pod, "grep Cap /proc/self/status")
    values = {line.split(":")[0]: int(line.split()[1], 16) for line in output.splitlines()}
    expected = mask(CAPABILITIES) & bounding_mask()
    assert values == {"CapInh": 0, "CapPrm": expected, "CapEff": expected, "CapBnd": expected, "CapAmb": 0}


async def test_all_capabilities_means_all_that_the_daemon_has(node: Node, pod: Pod) -> None:
    sets = {name: list(NAMES) for name in ("bounding", "effective", "permitted")}
    output = await node.sh(pod, "grep -E 'Cap(Eff|Bnd)' /proc/self/status", process={"capabilities": sets})
    assert [int(line.split()[1], 16) for line in output.splitlines()] == [bounding_mask()] * 2


async def test_ambient_capabilities_reach_a_user(node: Node, pod: Pod) -> None:
    names = ["CAP_NET_BIND_SERVICE"]
    sets = dict.fromkeys(("bounding", "effective", "permitted", "ambient"), names)
    fields = {"capabilities": sets, "user": {"uid": 1000, "gid": 1000}}
    output = await node.sh(pod, "grep Cap /proc/self/status", process=fields)
    assert {int(line.split()[1], 16) for line in output.splitlines()} == {mask(names)}


async def test_user_groups_umask_and_no_capability_for_others_than_root(node: Node, pod: Pod) -> None:
    user = {"uid": 1234, "gid": 2345, "additionalGids": [7, 8], "umask": 0o027}
    output = await node.sh(pod, "id -u; id -g; id -G; umask; grep CapEff /proc/self/status", process={"user": user})
    assert output.split() == ["1234", "2345", "2345", "7", "8", "0027", "CapEff:", "0" * 16]


async def test_no_groups_of_the_daemon_remain(node: Node, pod: Pod) -> None:
    assert (await node.sh(pod, "grep Groups /proc/self/status")).split() == ["Groups:"]


@pytest.mark.parametrize("no_new_privs", [True, False])
async def test_no_new_privileges(node: Node, pod: Pod, no_new_privs: bool) -> None:
    output = await node.sh(pod, "grep NoNewPrivs /proc/self/status", process={"noNewPrivileges": no_new_privs})
    assert output.split()[1] == str(int(no_new_privs))


async def test_signals_are_as_for_a_program_from_a_shell(node: Node, pod: Pod) -> None:
    _, output = await node.run(pod, "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")
    assert {line.split()[1] for line in output.splitlines()} == {"0" * 16}


async def test_rlimits(node: Node, pod: Pod) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": hard}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    output = await node.sh(pod, "ulimit -Sn; ulimit -Hn; ulimit -c", process={"rlimits": limits})
    assert output.split() == ["77", str(hard), "0"]


async def test_a_limit_above_the_daemons_own_says_what_it_needs(node: Node, pod: Pod) -> None:
    if bounding_mask() & mask(["CAP_SYS_RESOURCE"]):
        pytest.skip("this machine has CAP_SYS_RESOURCE: nothing is refused")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = [{"type": "RLIMIT_NOFILE", "soft": hard + 1, "hard": hard + 1}]
    with pytest.raises((OSError, ValueError)) as failed:
        await node.run(pod, "true", process={"rlimits": limits})
    assert "CAP_SYS_RESOURCE" in "".join(failed.value.__notes__)


async def test_environment_and_working_directory(node: Node, pod: Pod) -> None:
    fields = {"env": ["PATH=/nowhere:/bin", "A=1 2", "EMPTY=", "U=ü"], "cwd": "/made/for/it"}
    output = await node.sh(pod, "env; pwd", process=fields)
    assert {"A=1 2", "EMPTY=", "U=ü", "/made/for/it"} <= set(output.splitlines())


async def test_oom_score_adj_can_be_raised(node: Node, pod: Pod) -> None:
    assert await node.sh(pod, "cat /proc/self/oom_score_adj", process={"oomScoreAdj": 777}) == "777\n"


async def test_oom_score_adj_is_never_below_what_the_daemon_may_give(node: Node, pod: Pod) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    expected = -500 if bounding_mask() & mask(["CAP_SYS_RESOURCE"]) else max(own, -500)
    assert await node.sh(pod, "cat /proc/self/oom_score_adj", process={"oomScoreAdj": -500}) == f"{expected}\n"


async def test_the_session_keyring_is_a_new_one(node: Node, pod: Pod) -> None:
    output = await node.sh(pod, "cat /proc/keys", linux={"maskedPaths": []})
    own = [line for line in output.splitlines() if " keyring " in line]
    assert any("c1" in line or "c2" in line for line in own), output


async def test_bind_mounts_read_only_and_of_files(node: Node, pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_text("content\n")
    binds = [bind(tmp_path / "dir", "/deep/dir", "ro"), bind(tmp_path / "dir/file", "/etc/one-file", "ro")]
    script = "cat /deep/dir/file /etc/one-file; touch /deep/dir/x 2>&1; echo x 2>&1 > /etc/one-file || true"
    output = await node.sh(pod, f"set +e; {script}", mounts=binds)
    assert output.count("content") == 2
    assert output.count("Read-only file system") == 2


async def test_the_same_source_twice(node: Node, pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    binds = [bind(tmp_path / "source", "/a"), bind(tmp_path / "source", "/b", "ro")]
    output = await node.sh(pod, "touch /a/x; ls /b; touch /b/y 2>&1 || true", mounts=binds)
    assert output.startswith("x\n") and "Read-only" in output


async def test_a_tmpfs_volume_and_its_options(node: Node, pod: Pod) -> None:
    volume = mount("/cache", "tmpfs", "nosuid", "noexec", "size=1m", "mode=700")
    output = await node.sh(pod, "stat -c %a /cache; grep ' /cache ' /proc/self/mounts", mounts=[volume])
    assert output.startswith("700\n") and "nosuid,noexec" in output and "size=1024k" in output


async def test_an_image_of_several_layers_as_a_volume(node: Node, pod: Pod, tmp_path: Path) -> None:
    for name in ("top", "bottom"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(f"{name}\n")
    (tmp_path / "bottom/only").write_text("bottom\n")
    layers = [f"lowerdir+={tmp_path / name}" for name in ("top", "bottom")]
    volume = mount("/image", "overlay", "ro", "nodev", *layers)
    output = await node.sh(pod, "cat /image/which /image/only; touch /image/x 2>&1 || true", mounts=[volume])
    assert output.startswith("top\nbottom\n") and "Read-only" in output


async def test_it_sees_its_own_cgroups_read_only(node: Node, pod: Pod) -> None:
    limits = {"resources": {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}}
    find = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max 2>/dev/null || "
    find += "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"
    script = f"{find}; sed 's/.*://' /proc/self/cgroup | sort -u; mkdir /sys/fs/cgroup/unified/x 2>&1 || true"
    lines = (await node.sh(pod, script, linux=limits)).splitlines()
    assert lines[:2] == [str(64 << 20), "50"]
    assert "/" in lines


async def test_many_layers(node: Node, pod: Pod, tmp_path: Path) -> None:
    layers = []
    for number in range(60):
        layer = tmp_path / f"layer-with-a-rather-long-name-{number:03}"
        layer.mkdir()
        (layer / f"file{number}").touch()
        layers.append(str(layer))
    spec = node.container(pod, "sh", "-c", "ls / | grep -c file")
    assert isinstance(spec.rootfs, OverlayRootfs)
    spec.rootfs = OverlayRootfs((*layers, *spec.rootfs.lower), spec.rootfs.upper, spec.rootfs.work)
    await pod.start_container(spec)
    await node.exited(spec)
    assert logged(spec) == "60\n"


async def test_a_directory_as_root(node: Node, pod: Pod) -> None:
    assert await node.sh(pod, "ls /bin/true", rootfs=str(node.root)) == "/bin/true\n"


def seccomp_program(*forbidden: int) -> bytes:
    """Classic BPF: EPERM for these system calls, everything else allowed (x86-64 numbers are passed in)."""
    code = [struct.pack("<HBBI", 0x20, 0, 0, 0)]  # load the number
    for number in forbidden:
        code.append(struct.pack("<HBBI", 0x15, 0, 1, number))
        code.append(struct.pack("<HBBI", 0x06, 0, 0, 0x00050001))  # SECCOMP_RET_ERRNO | EPERM
    code.append(struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000))
    return b"".join(code)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter names system calls by x86-64 numbers")
@pytest.mark.parametrize("no_new_privs", [True, False])
async def test_seccomp_filter(node: Node, pod: Pod, tmp_path: Path, no_new_privs: bool) -> None:
    filter_file = tmp_path / "filter"
    filter_file.write_bytes(seccomp_program(83))  # mkdir
    fields: dict[str, Any] = {"seccomp_filter": str(filter_file), "process": {"noNewPrivileges": no_new_privs}}
    output = await node.sh(pod, "mkdir /x 2>&1 && exit 1; grep Seccomp: /proc/self/status", **fields)
    assert "Operation not permitted" in output
    assert output.split()[-1] == "2"
