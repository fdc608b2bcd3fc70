"""What the process of a container sees: user, rights, root file system, volumes, devices."""

from __future__ import annotations

from pathlib import Path

from cri.proto import api_pb2 as api
from images.build import directory, regular, symlink
from tests.support.crid import Crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry


async def output(
    crid: Crid, image: str, script: str, pod: dict[str, object] | None = None, **fields: object
) -> list[str]:
    sandbox = await crid.run_pod(crid.pod_config(**pod) if pod else None)
    id = await crid.run(sandbox, image, ["sh", "-c", script], **fields)
    await crid.ended(id)
    return crid.log_of(sandbox[1]).splitlines()


def security(**fields: object) -> dict[str, object]:
    return {"security_context": fields}


async def test_users_and_groups(crid: Crid, busybox: str) -> None:
    linux = security(run_as_user={"value": 1234}, run_as_group={"value": 77}, supplemental_groups=[5000])
    assert await output(crid, busybox, "id -u; id -g; id -G", linux=linux) == ["1234", "77", "77 5000"]
    status = (await crid.cri.ListContainers()).containers[0]
    user = (await crid.status(status.id)).user.linux
    assert (user.uid, user.gid, list(user.supplemental_groups)) == (1234, 77, [77, 5000])


async def test_capabilities(crid: Crid, busybox: str) -> None:
    script = "grep -E 'Cap(Inh|Prm|Bnd|Amb)' /proc/self/status | cut -f2"
    dropped = await output(crid, busybox, script, linux=security(capabilities={"drop_capabilities": ["ALL"]}))
    assert set(dropped) == {"0000000000000000"}
    one = {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_BIND_SERVICE"]}
    inherited, permitted, bounding, ambient = await output(crid, busybox, script, linux=security(capabilities=one))
    assert (inherited, permitted, bounding, ambient) == ("0" * 16, f"{1 << 10:016x}", f"{1 << 10:016x}", "0" * 16)


async def test_ambient_capabilities_reach_an_unprivileged_user(crid: Crid, busybox: str) -> None:
    ambient = {"add_ambient_capabilities": ["NET_BIND_SERVICE"], "drop_capabilities": ["ALL"]}
    linux = security(capabilities=ambient, run_as_user={"value": 1000})
    script = "grep -E 'Cap(Eff|Amb)' /proc/self/status | cut -f2"
    assert await output(crid, busybox, script, linux=linux) == [f"{1 << 10:016x}"] * 2


async def test_a_read_only_root(crid: Crid, busybox: str) -> None:
    lines = await output(
        crid, busybox, "touch /x; touch /etc/hosts; touch /dev/shm/y && echo shm", linux=security(readonly_rootfs=True)
    )
    assert sum("Read-only file system" in line for line in lines) == 2
    assert lines[-1] == "shm"


async def test_masked_and_read_only_paths(crid: Crid, busybox: str) -> None:
    script = "wc -c < /proc/timer_list; ls /proc/scsi /sys/firmware | grep -vc :; echo 1 > /proc/sys/kernel/panic"
    lines = await output(crid, busybox, script)
    assert lines[0] == "0"
    assert any("Read-only" in line for line in lines)


async def test_privileged(crid: Crid, busybox: str) -> None:
    privileged = {"linux": security(privileged=True)}
    script = (
        "ls /dev | wc -l; touch /proc/sys/kernel/panic && echo rw; mount -t tmpfs x /mnt 2>&1 || mkdir /m; echo end"
    )
    lines = await output(crid, busybox, script, pod=privileged, linux=security(privileged=True))
    assert int(lines[0]) > 16
    assert "rw" in lines


async def test_no_new_privileges_and_seccomp(crid: Crid, busybox: str) -> None:
    linux = security(no_new_privs=True, seccomp={"profile_type": api.SecurityProfile.RuntimeDefault})
    script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2; unshare -U true || echo denied"
    lines = await output(crid, busybox, script, linux=linux)
    assert (lines[:2], lines[-1]) == (["1", "2"], "denied")
    plain = await output(crid, busybox, "grep '^Seccomp:' /proc/self/status | cut -f2", linux=security())
    assert plain == ["0"]


async def test_volumes(crid: Crid, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("from the host")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    mounts = [
        {"container_path": "/rw", "host_path": str(tmp_path / "data")},
        {"container_path": "/ro", "host_path": str(tmp_path / "link"), "readonly": True},
        {"container_path": "/rro", "host_path": str(tmp_path), "readonly": True, "recursive_read_only": True},
        {"container_path": "/nx", "host_path": str(tmp_path), "mount_options": ["noexec", "nosuid"]},
        {"container_path": "/etc/hosts", "host_path": str(tmp_path / "data/file")},
    ]
    script = (
        "cat /ro/file; echo; echo new > /rw/made; touch /ro/x || echo ro; touch /rro/data/x || echo rro;"
        " grep ' /nx ' /proc/mounts; cat /etc/hosts"
    )
    lines = await output(crid, busybox, script, mounts=mounts)
    assert lines[0] == "from the host"
    assert {"ro", "rro"} <= set(lines)
    assert any("noexec" in line and "nosuid" in line for line in lines)
    assert lines[-1] == "from the host"
    assert (tmp_path / "data/made").read_text() == "new\n"


async def test_image_volumes(crid: Crid, busybox: str, registry: Registry) -> None:
    files = [regular("data/a", b"from an image")]
    pushed = push_image(registry, "volume:1", [files, [regular("data/b", b"b")]])
    await crid.cri.PullImage(image={"image": pushed.ref})
    mounts = [
        {"container_path": "/v", "image": {"image": pushed.ref}},
        {"container_path": "/s", "image": {"image": pushed.ref}, "image_sub_path": "data", "readonly": True},
    ]
    lines = await output(crid, busybox, "cat /v/data/a; echo; ls /s; touch /s/x || echo ro", mounts=mounts)
    assert lines[0] == "from an image"
    assert {"a", "b", "ro"} <= set(lines)


async def test_devices(crid: Crid, busybox: str) -> None:
    linux = security()
    devices = [{"container_path": "/dev/mine", "host_path": "/dev/zero", "permissions": "r"}]
    script = "head -c 3 /dev/mine | wc -c; echo x > /dev/mine || echo refused; mknod /k c 1 11; cat /k || echo no kmsg"
    lines = await output(crid, busybox, script, devices=devices, linux=linux)
    assert lines[0] == "3"
    assert "no kmsg" in lines


async def test_volumes_that_only_the_image_declares(crid: Crid, registry: Registry, tmp_path: Path) -> None:
    """The directory is there, writable under a read-only root, and gone with the container; what exists stays as is."""
    declared = {"/data/deep": {}, "/etc": {}, "/given": {}, "/given/below": {}, "/proc/x": {}, "/run/link/": {}}
    links = [symlink("run", "usr/run"), directory("usr/run")]
    pushed = push_image(registry, "declares:1", [busybox_rootfs(), links], {"Cmd": ["sh"], "Volumes": declared})
    await crid.cri.PullImage(image={"image": pushed.ref})
    script = "echo kept > /data/deep/x && stat -c '%a %u' /data/deep; ls /given; touch /etc/no 2>/dev/null || echo ro;"
    script += (
        "test -d /usr/run/link && echo through; awk '{print $5}' /proc/self/mountinfo | grep -E '^/(data|given|etc$)'"
    )
    fields = {
        "linux": security(readonly_rootfs=True),
        "mounts": [{"container_path": "/given", "host_path": str(tmp_path), "readonly": True}],
    }
    expected = ["755 0", "ro", "through", "/data/deep", "/given"]
    pod = await crid.run_pod()
    id = await crid.run(pod, pushed.ref, ["sh", "-c", script], **fields)
    await crid.ended(id)
    assert sorted(crid.log_of(pod[1]).splitlines()) == sorted(expected)
    [kept] = crid.root.glob("**/volumes/*/x")
    await crid.cri.RemoveContainer(container_id=id)
    assert not kept.exists()


async def test_working_directory_is_made(crid: Crid, busybox: str) -> None:
    assert await output(crid, busybox, "pwd", working_dir="/new/deep") == ["/new/deep"]


async def test_the_image_decides_what_the_request_leaves_open(crid: Crid, registry: Registry) -> None:
    config = {"Entrypoint": ["sh", "-c"], "Cmd": ["id -u; pwd; echo $HOME"], "User": "33", "WorkingDir": "/tmp"}
    pushed = push_image(registry, "defaults:1", [busybox_rootfs()], config)
    await crid.cri.PullImage(image={"image": pushed.ref})
    pod = await crid.run_pod()
    await crid.ended(await crid.run(pod, pushed.ref, []))
    assert crid.log_of(pod[1]).splitlines()[:2] == ["33", "/tmp"]
