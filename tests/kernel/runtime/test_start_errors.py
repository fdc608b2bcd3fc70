"""What cannot be started: the message names it, and nothing of the attempt is left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runtime.client import ContainerError, InvalidSpec, Pod, explain
from runtime.linux.cgroups import Cgroup, MissingController
from runtime.linux.mounttable import mounts_beneath
from runtime.spec import ContainerSpec
from tests.support.containers import Node, bind, mount


async def refused(node: Node, pod: Pod, *args: str, **fields: Any) -> str:
    """The explanation why a container could not be started; checks that nothing is left of it."""
    spec = node.container(pod, *args, **fields)
    with pytest.raises((ContainerError, MissingController, OSError)) as failed:
        await pod.start_container(spec)
    assert_nothing_left(node, pod, spec)
    await pod.start_container(node.container(pod, "true"))  # and the shim goes on
    return explain(failed.value)


def assert_nothing_left(node: Node, pod: Pod, spec: ContainerSpec) -> None:
    assert not Cgroup(spec.oci["linux"]["cgroupsPath"]).exists()
    assert not Path(pod.state_dir, "containers", f"{spec.id}.json").exists()
    assert all(mount.point.startswith(pod.state_dir) for mount in mounts_beneath(str(node.directory)))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-program", 'exec: "no-such-program": executable file not found in $PATH'),
        ("/no/such/path", 'exec: "/no/such/path": stat /no/such/path: no such file or directory'),
        ("/bin", 'exec: "/bin": stat /bin: is a directory'),
        ("/etc/plain", 'exec: "/etc/plain": permission denied'),
        ("/bin/garbage", "exec /bin/garbage: exec format error"),
        ("/bin/script", "exec /bin/script: no such file or directory"),
    ],
)
async def test_programs_that_cannot_be_executed(node: Node, pod: Pod, command: str, message: str) -> None:
    (node.root / "etc").mkdir()
    (node.root / "etc/plain").write_text("text")
    for name, text in (("garbage", "\x7fELF no"), ("script", "#!/missing/interpreter\n")):
        (node.root / "bin" / name).write_text(text)
        (node.root / "bin" / name).chmod(0o755)
    assert await refused(node, pod, command) == message


async def test_no_command(node: Node, pod: Pod) -> None:
    assert "no command" in await refused(node, pod)


async def test_a_user_that_may_not_execute_it(node: Node, pod: Pod) -> None:
    (node.root / "bin/busybox").chmod(0o700)
    user = {"uid": 1000, "gid": 1000}
    assert "executable file not found" in await refused(node, pod, "true", process={"user": user, "capabilities": {}})


async def test_working_directory_that_is_a_file(node: Node, pod: Pod) -> None:
    assert "/bin/true" in await refused(node, pod, "true", process={"cwd": "/bin/true"})


async def test_working_directory_that_the_user_may_not_enter(node: Node, pod: Pod) -> None:
    (node.root / "private").mkdir(mode=0o700)
    (node.root / "private/deep").mkdir()
    os.chmod(node.root / "private", 0o700)
    fields = {"cwd": "/private/deep", "user": {"uid": 1000, "gid": 1000}, "capabilities": {}}
    code, _ = await node.run(pod, "true", process=fields)
    assert code == 0  # as root it can be entered, as with the peers
    assert "No such" not in str(code)


async def test_mount_source_that_does_not_exist(node: Node, pod: Pod) -> None:
    why = await refused(node, pod, "true", mounts=[bind("/no/such/source", "/x")])
    assert "No such file or directory" in why and "open mount source /no/such/source" in why


async def test_mount_of_a_directory_on_a_file(node: Node, pod: Pod, tmp_path: Path) -> None:
    why = await refused(node, pod, "true", mounts=[bind(tmp_path, "/bin/true")])
    assert "Not a directory" in why and "/bin/true" in why


async def test_what_a_filesystem_says_is_passed_on(node: Node, pod: Pod) -> None:
    why = await refused(node, pod, "true", mounts=[mount("/x", "tmpfs", "no-such-option=1")])
    assert "no-such-option" in why and "mount tmpfs on /x" in why


@pytest.mark.parametrize("kind", ["nfs", "ext4", "fuse"])
async def test_mount_types_that_containers_do_not_get(node: Node, pod: Pod, kind: str) -> None:
    assert f"mount type '{kind}'" in await refused(node, pod, "true", mounts=[mount("/x", kind)])


@pytest.mark.parametrize("id", [-1, 2**32 - 1, 2**32, "0", True, None])
async def test_ids_that_would_wrap_around(node: Node, pod: Pod, id: Any) -> None:
    assert "is not a number between" in await refused(node, pod, "true", process={"user": {"uid": id, "gid": 0}})


async def test_unknown_capability_and_rlimit(node: Node, pod: Pod) -> None:
    assert "CAP_NO_SUCH" in await refused(node, pod, "true", process={"capabilities": {"bounding": ["CAP_NO_SUCH"]}})
    limits = [{"type": "RLIMIT_NO_SUCH", "soft": 1, "hard": 1}]
    assert "RLIMIT_NO_SUCH" in await refused(node, pod, "true", process={"rlimits": limits})


async def test_nul_in_arguments_and_environment(node: Node, pod: Pod) -> None:
    assert "NUL" in await refused(node, pod, "true", "a\0b")
    assert "NUL" in await refused(node, pod, "true", process={"env": ["A=\0"]})


async def test_log_directory_that_does_not_exist(node: Node, pod: Pod) -> None:
    assert "/no/such/log" in await refused(node, pod, "true", log_path="/no/such/log")


async def test_missing_controller(node: Node, pod: Pod) -> None:
    resources = {"resources": {"unified": {"nosuch.max": "1"}}}
    assert "nosuch" in await refused(node, pod, "true", linux=resources)


async def test_broken_seccomp_filter(node: Node, pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "filter").write_bytes(b"12345")
    assert "no seccomp filter" in await refused(node, pod, "true", seccomp_filter=str(tmp_path / "filter"))


@pytest.mark.parametrize("id", ["", "..", "a/b", ".hidden", "x" * 300])
async def test_container_ids_that_are_no_file_names(node: Node, pod: Pod, id: str) -> None:
    spec = node.container(pod, "true")
    spec.id = id
    with pytest.raises((InvalidSpec, OSError)):
        await pod.start_container(spec)


async def test_the_same_container_twice(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    with pytest.raises(InvalidSpec, match="before"):
        await pod.start_container(spec)
    assert (await pod.container_status(spec.id))["pid"]


async def test_a_container_killed_while_it_is_set_up_says_so(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "true", linux={"resources": {"memory": {"limit": 4096}}})
    with pytest.raises(
        (ContainerError, OSError), match=r"memory limit|Cannot allocate|Device or resource busy"
    ) as failed:
        await pod.start_container(spec)
    assert spec.id in explain(failed.value)
