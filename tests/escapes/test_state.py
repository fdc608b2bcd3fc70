"""Directories of the runtime, logs and names in requests: what leads elsewhere, and who may look."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from runtime.linux.cgroups import Cgroup
from tests.support.attacker import namespaces
from tests.support.crid import Crid

NOBODY = 65534


async def test_nothing_of_ours_is_open_to_other_users(crid: Crid, hostile: str) -> None:
    """C3, C12: CVE-2021-41103, CVE-2024-25621. Set-user-id programs of an image are no programs of the host's users."""
    pod = await crid.run_pod()
    await crid.run(pod, hostile, ["sleep", "100"])
    for top in (crid.root, crid.state):
        assert stat.S_IMODE(top.stat().st_mode) == 0o700
        assert not reachable(top, NOBODY)
    sockets = [path for path in crid.state.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    assert len(sockets) >= 2
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in sockets} == {0}
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in crid.state.glob("sandboxes/*/")} == {0}


def reachable(path: Path, uid: int) -> bool:
    """Whether a process of another user can list a directory."""
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.listdir(path)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("field", ["uid", "name", "namespace"])
@pytest.mark.parametrize("value", ["../../etc", "a/../../b", "/etc", "..", ".", "a\nb", "a\0b", "a b", ""])
async def test_names_of_a_pod_are_no_paths(crid: Crid, field: str, value: str) -> None:
    """O7, CVE-2025-0750."""
    config = crid.pod_config()
    setattr(config.metadata, field, value)
    with pytest.raises(CriError, match=f"metadata.{field}") as refused:
        await crid.run_pod(config)
    assert refused.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "a/../../b", "..", "."])
async def test_a_log_path_stays_below_its_directory(crid: Crid, hostile: str, path: str) -> None:
    with pytest.raises(CriError, match="log_path"):
        await crid.create(await crid.run_pod(), hostile, ["true"], log_path=path)


@pytest.mark.parametrize("parent", ["/../../etc", "/a/../../b", "kubepods", "/a//../b", "system.slice"])
async def test_a_cgroup_parent_does_not_climb(crid: Crid, parent: str) -> None:
    with pytest.raises(CriError, match="cgroup_parent"):
        await crid.run_pod(linux=api.LinuxPodSandboxConfig(cgroup_parent=parent))


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "device"])
async def test_a_log_that_somebody_has_replaced(crid: Crid, hostile: str, canary: Path, kind: str) -> None:
    """C16 and the classic of a pod with /var/log as a volume: the runtime must not write, or wait, where it leads."""
    pod = await crid.run_pod()
    directory = Path(pod[1].log_directory, "sub")
    directory.mkdir()
    log = directory / "file"
    match kind:
        case "link":
            log.symlink_to(canary / "file")
        case "dangling":
            log.symlink_to(canary / "new")
        case "fifo":
            os.mkfifo(log)
        case "device":
            os.mknod(log, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with pytest.raises(CriError):
        await crid.run(pod, hostile, ["echo", "text"], log_path="sub/file")
    log.unlink()
    id = await crid.run(pod, hostile, ["sleep", "100"], log_path="sub/file", name="again")
    assert (await crid.exec(id, "true"))[0] == 0


async def test_a_log_directory_that_becomes_a_link(crid: Crid, hostile: str, canary: Path) -> None:
    """A link is followed when the container starts, as /var/log of any client may be one; later it is refused."""
    pod = await crid.run_pod()
    directory = Path(pod[1].log_directory, "sub")
    id = await crid.run(pod, hostile, ["sh", "-c", "while sleep 0.01; do echo x; done"], log_path="sub/file")
    directory.rename(directory.with_name("moved"))
    directory.symlink_to(canary)
    with pytest.raises(CriError):
        await crid.cri.ReopenContainerLog(container_id=id)


@pytest.mark.parametrize("ipc", [api.POD, api.NODE])
async def test_files_that_we_put_in_do_not_fill_the_node(crid: Crid, hostile: str, ipc: api.NamespaceMode) -> None:
    """K4, CVE-2020-8557: they are ours, on the node's /run, and no limit of the container's counts them."""
    pod = await crid.run_pod(linux=namespaces(ipc=ipc))
    id = await crid.run(pod, hostile, ["sleep", "100"])
    for path in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
        assert (await crid.exec(id, "sh", "-c", f"echo mine >> {path}; grep mine {path}"))[1] == "mine\n"
        code, _, error = await crid.exec(id, "dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=16")
        assert code and "No space left" in error
    assert sum(path.stat().st_size for path in (crid.state / "sandboxes" / pod[0] / "etc").iterdir()) < 8 << 20
    other = await crid.run(await crid.run_pod(), hostile, ["sleep", "100"])
    assert (await crid.exec(other, "hostname"))[0] == 0


async def test_no_socket_of_ours_is_abstract(crid: Crid, hostile: str) -> None:
    """C1, CVE-2020-15257: a pod on the host's network sees every abstract socket, and needs no path to connect."""
    pod = await crid.run_pod(linux=namespaces(network=api.NODE))
    id = await crid.run(pod, hostile, ["sleep", "100"])
    listed = (await crid.exec(id, "cat", "/proc/net/unix"))[1].splitlines()
    shim = int(Path(f"/proc/{await crid.pid_of(id)}/stat").read_text().rpartition(")")[2].split()[1])
    ours = [line for line in listed if line.split()[6] in sockets_of(shim) | sockets_of(crid.process.pid)]  # type: ignore[union-attr]
    assert len(ours) > 2 and not [line for line in ours if "@" in line]
    assert (await crid.exec(id, "ls", str(crid.state)))[0] != 0


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if os.path.lexists(fd)]
    return {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}


async def test_relabelling_of_the_hosts_files_is_refused(crid: Crid, hostile: str) -> None:
    """C4, CVE-2021-43816: a kernel without SELinux has no labels to change, and nothing else is touched."""
    before = {path: os.listxattr(path) for path in ("/etc/hosts", "/etc")}
    mounts = [api.Mount(host_path="/etc/hosts", container_path="/x", readonly=True, selinux_relabel=True)]
    pod = await crid.run_pod()
    try:
        await crid.run(pod, hostile, ["sleep", "100"], mounts=mounts)
    except CriError as refused:
        assert refused.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
    assert {path: os.listxattr(path) for path in before} == before


async def test_a_pod_with_ids_of_its_own_is_in_its_cgroup(crid: Crid, hostile: str) -> None:
    """C13, CVE-2025-47291: a user namespace takes no process out of the pod's limits."""
    ids = api.IDMapping(host_id=1_000_000, container_id=0, length=65536)
    options = api.NamespaceOption(
        pid=api.CONTAINER, userns_options=api.UserNamespace(mode=api.POD, uids=[ids], gids=[ids])
    )
    pod = await crid.run_pod(linux={"security_context": {"namespace_options": options}})
    id = await crid.run(pod, hostile, ["sleep", "100"])
    cgroups = Path(f"/proc/{await crid.pid_of(id)}/cgroup").read_text()
    unified = next(line for line in cgroups.splitlines() if line.startswith("0::"))
    assert f"pod{pod[1].metadata.uid}/{id}" in unified
    assert cgroups.count(f"pod{pod[1].metadata.uid}/{id}") >= len(Cgroup(f"/{crid.bridge}").directories)
