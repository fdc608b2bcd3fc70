"""Where controllers are, from the mount tables and cgroup files of the hosts that there are."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from runtime.linux.cgroups import Cgroup, CgroupError, InvalidResources, Layout, files, layout, tree

V2_MOUNT = "30 23 0:26 / {at} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "{n} 31 0:{n} {root} /sys/fs/cgroup/{at} rw,relatime - cgroup cgroup rw,{options}"
OTHER = "22 1 0:20 / / rw,relatime - ext4 /dev/vda1 rw"


def parse(mounts: list[str], own: str, first: bool = True) -> Layout:
    return layout._layout([OTHER, *mounts], own.splitlines(), first)


@pytest.fixture
def v2(tmp_path: Path) -> str:
    (tmp_path / "own" / "leaf").mkdir(parents=True)
    for directory in (tmp_path, tmp_path / "own" / "leaf"):
        (directory / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids unheard-of\n")
    return str(tmp_path)


def v1(at: str, options: str, root: str = "/", n: int = 40) -> str:
    return V1_MOUNT.format(at=at, options=options, root=root, n=n)


def test_a_unified_host_has_its_tree_at_the_root(v2: str) -> None:
    found = parse([V2_MOUNT.format(at=v2)], "0::/own/leaf\n")
    assert (found.mode, found.v2, found.v1) == ("unified", v2, {})
    assert found.v2_controllers == {"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}
    assert [found.version(name) for name in ("memory", "devices", "cgroup", "net_cls")] == [2, 2, 2, 0]


def test_in_a_cgroup_namespace_of_its_own_it_is_below_the_daemons_cgroup(v2: str) -> None:
    assert parse([V2_MOUNT.format(at=v2)], "0::/own/leaf\n", first=False).v2 == f"{v2}/own/leaf"


def test_a_hybrid_host_uses_the_daemons_cgroup_in_every_hierarchy(v2: str) -> None:
    mounts = [v1("cpu,cpuacct", "cpu,cpuacct"), v1("memory", "memory"), v1("systemd", "xattr,name=systemd")]
    own = "5:name=systemd:/system.slice\n3:memory:/system.slice/node\n2:cpu,cpuacct:/\n0::/own/leaf\n"
    found = parse([*mounts, V2_MOUNT.format(at=v2)], own)
    assert found.mode == "hybrid"
    assert found.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory/system.slice/node",
    }
    assert found.v2 == f"{v2}/own/leaf"
    assert found.directories() == (
        "/sys/fs/cgroup/cpu,cpuacct",
        "/sys/fs/cgroup/memory/system.slice/node",
        f"{v2}/own/leaf",
    )
    assert [found.version(name) for name in ("memory", "pids", "devices", "cgroup")] == [1, 0, 2, 2]


def test_beside_v1_only_the_root_of_v2_can_give_controllers_to_children(v2: str) -> None:
    mounts = [v1("memory", "memory"), V2_MOUNT.format(at=v2)]
    assert parse(mounts, "3:memory:/\n0::/own/leaf\n").v2_controllers == frozenset()
    assert "pids" in parse(mounts, "3:memory:/\n0::/\n").v2_controllers


def test_a_legacy_host_has_no_v2() -> None:
    found = parse([v1("memory", "memory")], "3:memory:/\n")
    assert (found.mode, found.v2, found.version("devices")) == ("legacy", "", 0)
    assert Cgroup("/kubepods", found).v2 == ""


def test_killing_where_it_cannot_be_done(tmp_path: Path) -> None:
    Cgroup("/gone", Layout({}, str(tmp_path), frozenset())).kill()
    Cgroup("/legacy", Layout({"memory": str(tmp_path)}, "", frozenset())).kill()  # nobody can be in it
    (tmp_path / "old").mkdir()
    with pytest.raises(FileNotFoundError, match=r"old/cgroup\.kill"):
        Cgroup("/old", Layout({}, str(tmp_path), frozenset())).kill()


def test_a_mount_that_shows_only_a_part_of_the_hierarchy() -> None:
    mounts = [v1("memory", "memory", root="/docker/1"), v1("pids", "pids", root="/docker/1", n=41)]
    found = parse(mounts, "3:memory:/docker/1/sub\n4:pids:/../other\n")
    assert found.v1 == {"memory": "/sys/fs/cgroup/memory/sub", "pids": "/sys/fs/cgroup/pids"}


def test_no_cgroups_at_all_is_an_error() -> None:
    with pytest.raises(CgroupError, match="mount cgroup2"):
        parse([], "0::/\n")


def test_a_layout_goes_through_json(v2: str) -> None:
    found = parse([v1("memory", "memory"), V2_MOUNT.format(at=v2)], "3:memory:/a\n0::/\n")
    assert Layout.from_json(found.to_json()) == found


def test_detect_finds_this_hosts_cgroups() -> None:
    found = layout.detect()
    assert all(Path(directory).is_dir() for directory in found.directories())


@pytest.mark.parametrize("path", ["", "/", "kubepods", "/a/../b", "/a//b", "/a/./b", "/a\0b", "/a/"])
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(InvalidResources, match="cgroup path"):
        Cgroup(path, Layout({}, "/sys/fs/cgroup", frozenset()))


class Kernel:
    """Writes to cgroup.subtree_control: what a cgroup has not been given it cannot hand on (kernel/cgroup/cgroup.c)."""

    def __init__(self, root: str, refused: str) -> None:
        self.written: list[tuple[str, str]] = []
        self._root, self._refused = root, refused

    def write(self, path: str, value: str) -> None:
        directory, words = Path(path).parent, value.split()
        given = (directory / "cgroup.controllers").read_text().split()
        if any(word[1:] not in given for word in words):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        if self._refused in words:
            raise OSError(errno.EINVAL, "Invalid argument", path)
        self.written.append((path.removeprefix(self._root), value))
        for child in filter(Path.is_dir, directory.iterdir()):
            with (child / "cgroup.controllers").open("a") as file:
                file.writelines(f"{word[1:]}\n" for word in words)


def test_a_controller_that_the_kernel_refuses_does_not_cost_the_others(
    v2: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(v2, "+cpu")
    Path(v2, "a/b").mkdir(parents=True)
    monkeypatch.setattr(files, "write", kernel.write)
    tree.enable_controllers(Layout({}, v2, frozenset({"cpu", "memory", "pids"})), "/a/b")
    control = "cgroup.subtree_control"
    assert kernel.written == [(f"{at}/{control}", word) for at in ("", "/a") for word in ("+memory", "+pids")]


def test_controllers_of_a_cgroup_that_is_gone(v2: str) -> None:
    with pytest.raises(FileNotFoundError):
        tree.enable_controllers(Layout({}, v2, frozenset({"cpu"})), "/gone/b")
