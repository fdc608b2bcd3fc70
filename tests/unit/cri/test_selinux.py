"""SELinux labels from a request and the policy's files, and what is never relabelled."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest
from cri.server.security import selinux
from cri.server.security.selinux import Labels, Selinux, check_relabel
from runtime.linux import lsm
from runtime.linux.cgroups import Cgroup, Layout
from runtime.linux.overlay import OverlayRootfs
from runtime.mounting import MountFilesystem, MountOverlay, MountRoot
from runtime.protections import MaskPath
from runtime.rootfs import plan

NOTHING = api.SELinuxOption()


@pytest.fixture
def host(tmp_path: Path) -> Selinux:
    contexts = tmp_path / "targeted/contexts"
    contexts.mkdir(parents=True)
    (tmp_path / "config").write_text("# which\nSELINUX=enforcing\nSELINUXTYPE=targeted\n")
    text = 'process = "system_u:system_r:my_container_t:s0"\nfile = "system_u:object_r:my_file_t:s0"\ncontent = "x"\n'
    (contexts / "lxc_contexts").write_text(text)
    (tmp_path / "context").touch()
    return Selinux(enabled=True, directory=tmp_path, kernel=tmp_path)


def test_pods_differ_and_containers_of_a_pod_do_not(host: Selinux) -> None:
    one, again, other = (host.labels(pod, NOTHING, NOTHING, False) for pod in ("a" * 64, "a" * 64, "b" * 64))
    assert one == again != other
    process, level = one.process.rsplit(":s0:", 1)
    first, second = (int(category.removeprefix("c")) for category in level.split(","))
    assert process == "system_u:system_r:my_container_t"
    assert one.mount == f"system_u:object_r:my_file_t:s0:{level}"
    assert 0 <= first < second < 1024


def test_options_of_the_container_come_before_those_of_its_pod(host: Selinux) -> None:
    pod = api.SELinuxOption(type="pod_t", level="s0:c1,c2", user="pod_u")
    own = api.SELinuxOption(type="own_t", role="own_r")
    labels = host.labels("x", pod, own, False)
    assert labels == Labels("pod_u:own_r:own_t:s0:c1,c2", "system_u:object_r:my_file_t:s0:c1,c2")
    assert host.labels("x", pod, own, True) == Labels("", "system_u:object_r:my_file_t:s0:c1,c2")


def test_a_policy_without_contexts_of_containers(tmp_path: Path) -> None:
    (tmp_path / "context").touch()
    host = Selinux(enabled=True, directory=tmp_path, kernel=tmp_path)
    labels = host.labels("x", NOTHING, api.SELinuxOption(level="s0"), False)
    assert labels == Labels("system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0")


def test_without_selinux_labels_are_passed_over_but_still_have_to_be_some(tmp_path: Path) -> None:
    host = Selinux(enabled=False, directory=tmp_path)
    assert host.labels("x", NOTHING, api.SELinuxOption(type="my_t"), False) == Labels()
    for bad in ({"level": "s0:c1:evil"}, {"type": "a:b"}, {"user": "a\nb"}, {"level": "top"}):
        with pytest.raises(InvalidRequest, match=f"selinux_options.{next(iter(bad))}"):
            host.labels("x", NOTHING, api.SELinuxOption(**bad), False)


def test_the_kernel_is_asked_whether_its_policy_has_the_labels(
    host: Selinux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = host.labels("x", NOTHING, NOTHING, True)
    assert (tmp_path / "context").read_bytes() == labels.mount.encode() + b"\0"

    def refuse(path: Path, content: bytes) -> int:
        raise OSError(errno.EINVAL if b"spc_t" in content else errno.EACCES, "no", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(InvalidRequest, match="no SELinux context 'system_u:system_r:spc_t:s0:c1,c2'"):
        host.labels("x", NOTHING, api.SELinuxOption(type="spc_t", level="s0:c1,c2"), False)
    with pytest.raises(PermissionError):
        host.labels("x", NOTHING, NOTHING, False)


def test_layers_are_labelled_once_for_all(host: Selinux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsm, "LABEL", "user.label")
    monkeypatch.setattr(selinux, "LABEL", "user.label")
    place, label = tmp_path / "root/snapshots", b"system_u:object_r:container_ro_file_t:s0\0"
    (place / "layer").mkdir(parents=True)
    try:
        os.setxattr(place, "user.label", b"inherited")
    except OSError as error:
        pytest.skip(f"the file system of {tmp_path} has no extended attributes: {error}")
    host.share_layers(place)
    assert os.getxattr(place, "user.label") == os.getxattr(place / "layer", "user.label") == label
    (place / "new").mkdir()
    host.share_layers(place)
    assert os.listxattr(place / "new") == []  # which a kernel with SELinux would have labelled itself
    Selinux(enabled=False).share_layers(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("path", ["/", "/etc", "/etc/hosts", "/usr/share/x", "/var/lib", "/home", "/proc/1", "/run"])
def test_what_the_node_lives_on_is_not_relabelled(path: str) -> None:
    """CVE-2021-43816."""
    with pytest.raises(InvalidRequest, match="selinux_relabel"):
        check_relabel(path)


@pytest.mark.parametrize("path", ["/var/lib/kubelet/pods/uid/volumes/x", "/home/me/data", "/etcetera", "/srv/data"])
def test_what_belongs_to_pods_is(path: str) -> None:
    check_relabel(path)


def test_a_volume_is_relabelled_without_leaving_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C4, and what K1 is for mounts: a link in the way, or in the volume, takes no label to where it leads."""
    monkeypatch.setattr(lsm, "LABEL", "user.label")
    (tmp_path / "volume/deep").mkdir(parents=True)
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    for place in ("volume/deep/file", "elsewhere/deep/file"):
        (tmp_path / place).touch()
    (tmp_path / "volume/link").symlink_to(tmp_path / "elsewhere")
    try:
        os.setxattr(tmp_path / "elsewhere", "user.label", b"own")
    except OSError as error:
        pytest.skip(f"the file system of {tmp_path} has no extended attributes: {error}")
    with pytest.raises(PermissionError):  # a link has no attributes of the user's
        selinux.relabel(str(tmp_path / "volume"), "theirs")
    (tmp_path / "volume/link").unlink()
    selinux.relabel(str(tmp_path / "volume"), "theirs")
    assert os.getxattr(tmp_path / "volume/deep/file", "user.label") == b"theirs\0"
    (tmp_path / "volume").rename(tmp_path / "moved")
    (tmp_path / "volume").symlink_to(tmp_path / "elsewhere")
    for path in ("volume", "volume/deep"):
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            selinux.relabel(str(tmp_path / path), "theirs")
    assert os.getxattr(tmp_path / "elsewhere", "user.label") == b"own"
    assert os.listxattr(tmp_path / "elsewhere/deep") == os.listxattr(tmp_path / "elsewhere/deep/file") == []


def test_mounts_carry_the_label() -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    mounts = [{"destination": f"/{kind}", "type": kind, "options": ["nosuid"]} for kind in ("tmpfs", "devpts", "proc")]
    mounts += [{"destination": "/image", "type": "overlay", "options": ["lowerdir+=/a", "lowerdir+=/b"]}]
    mounts += [{"destination": "/dev/mqueue", "type": "mqueue"}]
    tree = {
        "rootfs": OverlayRootfs(("/lower",), "/upper", "/work").to_json(),
        "label": label,
        "ids": None,
        "mounts": mounts,
        "devices": [],
        **{
            "readonly": False,
            "cwd": "/",
            "devices_all": False,
            "masked": ["/usr"],
            "readonly_paths": [],
            "separation": {},
        },
    }
    steps = plan(tree, Cgroup("/x", Layout({}, "/sys/fs/cgroup", frozenset())))
    (root,) = [step.rootfs for step in steps if isinstance(step, MountRoot)]
    assert isinstance(root, OverlayRootfs) and root.options == (f"context={label}",)
    labelled = {
        step.fstype for step in steps if isinstance(step, MountFilesystem) and ("context", label) in step.options.data
    }
    assert labelled == {"tmpfs", "devpts"}
    assert [step.fstype for step in steps if isinstance(step, MountFilesystem) and step.label == label] == ["mqueue"]
    assert [step.label for step in steps if isinstance(step, MountOverlay | MaskPath)] == [label, label]
