"""Mounts of a container, field by field, as the kernel shows them inside."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cri.proto import api_pb2 as api
from images.build import regular
from tests.support.asking import output, refused, security
from tests.support.crid import Crid
from tests.support.images import push_image
from tests.support.registry import Registry


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory that is a shared mount, with a tmpfs in it; whatever is mounted below is gone afterwards."""
    place = tmp_path / "shared"
    place.mkdir()
    run = ["mount", "--bind", str(place), str(place)]
    subprocess.run(run, check=True, timeout=10)
    try:
        subprocess.run(["mount", "--make-shared", str(place)], check=True, timeout=10)
        (place / "sub").mkdir()
        mount_tmpfs(place / "sub")
        (place / "late").mkdir()
        (place / "inside").mkdir()
        yield place
    finally:
        for name in ("late", "inside", "sub", ""):
            with contextlib.suppress(subprocess.CalledProcessError):
                subprocess.run(["umount", "-l", str(place / name)], check=True, timeout=10, stderr=subprocess.DEVNULL)


def mount_tmpfs(place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "test", str(place)], check=True, timeout=10)


@pytest.mark.parametrize(
    ("mode", "arrives", "leaves"),
    [
        (api.PROPAGATION_PRIVATE, False, False),
        (api.PROPAGATION_HOST_TO_CONTAINER, True, False),
        (api.PROPAGATION_BIDIRECTIONAL, True, True),
    ],
)
async def test_propagation(crid: Crid, busybox: str, shared: Path, mode: int, arrives: bool, leaves: bool) -> None:
    pod = await crid.run_pod(linux=security(privileged=True))
    mounts = [{"container_path": "/v", "host_path": str(shared), "propagation": mode}]
    id = await crid.run(pod, busybox, ["sleep", "1000"], mounts=mounts, linux=security(privileged=True))
    mount_tmpfs(shared / "late")
    code, seen, _ = await crid.exec(id, "sh", "-c", "mount -t tmpfs x /v/inside && cat /proc/self/mounts")
    assert code == 0
    assert " /v/sub " in seen
    assert (" /v/late " in seen) == arrives
    assert (f" {shared}/inside " in Path("/proc/self/mounts").read_text()) == leaves


async def test_recursive_read_only(crid: Crid, busybox: str, shared: Path) -> None:
    plain = {"container_path": "/ro", "host_path": str(shared), "readonly": True}
    mounts = [plain, {**plain, "container_path": "/rro", "recursive_read_only": True}]
    script = (
        "touch /ro/x || echo ro; touch /ro/sub/x && echo sub; touch /rro/sub/y || echo rro; touch /rro/y || echo top"
    )
    lines = await output(crid, busybox, script, mounts=mounts)
    assert [line for line in lines if ":" not in line] == ["ro", "sub", "rro", "top"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"recursive_read_only": True}, "needs readonly and PROPAGATION_PRIVATE"),
        (
            {"recursive_read_only": True, "readonly": True, "propagation": api.PROPAGATION_HOST_TO_CONTAINER},
            "needs readonly and PROPAGATION_PRIVATE",
        ),
        (
            {"recursive_read_only": True, "readonly": True, "propagation": api.PROPAGATION_BIDIRECTIONAL},
            "needs readonly and PROPAGATION_PRIVATE",
        ),
        ({"mount_options": ["suid"]}, "are not of nodev, noexec, nosuid"),
        ({"mount_options": ["noexec", "context=x"]}, "are not of nodev, noexec, nosuid"),
    ],
)
async def test_mounts_that_contradict_themselves(crid: Crid, busybox: str, fields: dict[str, Any], words: str) -> None:
    mount = {"container_path": "/v", "host_path": "/tmp", **fields}
    await refused(crid, busybox, words, mounts=[mount])


async def test_mount_options(crid: Crid, busybox: str, tmp_path: Path) -> None:
    """KEP-5855."""
    (tmp_path / "program").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "program").chmod(0o755)
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    options: list[list[str]] = [[], ["noexec"], ["nodev"], ["nosuid"], ["noexec", "nodev", "nosuid"]]
    mounts = [
        {"container_path": f"/v{number}", "host_path": str(tmp_path), "mount_options": words}
        for number, words in enumerate(options)
    ]
    script = "for n in 0 1 2 3 4; do /v$n/program || echo no; cat /v$n/null && echo dev || echo no; done 2> /dev/null;"
    script += "awk '$5 ~ /^.v[0-9]$/ {print $5, $6}' /proc/self/mountinfo | sort"
    lines = await output(crid, busybox, script, mounts=mounts)
    assert lines[:10] == ["ran", "dev", "no", "dev", "ran", "no", "ran", "dev", "no", "no"]
    for seen, words in zip(lines[10:], options, strict=True):
        assert set(words) <= set(seen.split()[1].split(","))


async def test_sources_that_are_links_or_missing(crid: Crid, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("through two links")
    (tmp_path / "one").symlink_to("real")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    (tmp_path / "nowhere").symlink_to("not/there")
    mounts = [{"container_path": "/v", "host_path": str(tmp_path / "two")}]
    assert await output(crid, busybox, "cat /v/file", mounts=mounts) == ["through two links"]
    for name in ("nowhere", "none"):
        mounts = [{"container_path": "/v", "host_path": str(tmp_path / name)}]
        await refused(crid, busybox, f"{name}' does not exist", "NOT_FOUND", mounts=mounts)
    assert not (tmp_path / "none").exists()


async def test_sub_paths_of_images(crid: Crid, busybox: str, registry: Registry) -> None:
    """KEP-4639, KEP-5365."""
    layers = [[regular("data/a", b"1"), regular("data/deep/b", b"2")], [regular("data/deep/c", b"3")]]
    pushed = push_image(registry, "subpaths:1", layers)
    await crid.cri.PullImage(image={"image": pushed.ref})
    mount = {"container_path": "/v", "image": {"image": pushed.ref}}
    lines = await output(
        crid, busybox, "cd /v; ls; touch x || echo ro", mounts=[{**mount, "image_sub_path": "data/deep"}]
    )
    assert {"b", "c", "ro"} <= set(lines)
    for path in ("no/such", "../etc", "/etc/../../x"):
        await refused(crid, busybox, "image_sub_path", "NOT_FOUND", mounts=[{**mount, "image_sub_path": path}])
    await refused(
        crid, busybox, "without an image", mounts=[{**mount, "image": {}, "host_path": "/", "image_sub_path": "x"}]
    )
