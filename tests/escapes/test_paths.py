"""Names in images and volumes that lead out of the root filesystem, also while somebody swaps them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from images.build import directory, regular, symlink
from tests.escapes.conftest import Forge
from tests.support.attacker import capabilities, said, security
from tests.support.crid import Crid

STARTS = 15


def volume(source: Path, place: str, **fields: object) -> api.Mount:
    return api.Mount(host_path=str(source), container_path=place, **fields)


@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["{canary}", "../../../../../../../..{canary}", "/nowhere"])
async def test_a_link_where_the_kernels_filesystems_go(
    crid: Crid, forge: Forge, canary: Path, place: str, target: str
) -> None:
    """R2, R3, R9, R15: CVE-2019-16884, -18837, CVE-2023-28642, CVE-2026-41579, -47766."""
    image = await forge.image([symlink(place, target.replace("{canary}", str(canary)))])
    with pytest.raises(CriError, match=f"the image's /{place} is not a plain directory"):
        await crid.run(await crid.run_pod(), image, ["sleep", "100"])


async def test_a_volume_in_the_place_of_proc(crid: Crid, hostile: str, tmp_path: Path) -> None:
    """R2, R4, R14: settings that are written through a procfs of somebody else's making are written nowhere."""
    fake = tmp_path / "proc"
    for name in ("self/attr/exec", "self/oom_score_adj", "sys/net/ipv4/ip_forward", "1/status", "timer_list"):
        (fake / name).parent.mkdir(parents=True, exist_ok=True)
        (fake / name).write_text("bait")
    (fake / "thread-self").symlink_to("self")
    pod = await crid.run_pod()
    linux = security(no_new_privs=True, seccomp=api.SecurityProfile(profile_type=0))
    linux.resources.oom_score_adj = 900
    id = await crid.run(pod, hostile, ["sleep", "100"], mounts=[volume(fake, "/proc")], linux=linux)
    pid = await crid.pid_of(id)
    status = Path(f"/proc/{pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "900"
    assert {path.read_text() for path in fake.rglob("*") if path.is_file()} == {"bait"}
    assert (await crid.exec(id, "true"))[0] == 0


async def test_volumes_whose_places_are_links_of_the_image(
    crid: Crid, forge: Forge, canary: Path, tmp_path: Path
) -> None:
    """R3, R17: what has to be made for a mount is made inside."""
    image = await forge.image([symlink("data", str(canary)), symlink("up", f"../../../../../..{canary}")])
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/mine").touch()
    mounts = [volume(tmp_path / "volume", place) for place in ("/data/inside", "/up/deeper")]
    id = await crid.run(await crid.run_pod(), image, ["sleep", "100"], mounts=mounts)
    assert (await crid.exec(id, "ls", f"{canary}/inside", f"{canary}/deeper"))[1].count("mine") == 2


@pytest.mark.parametrize("etc", ["{canary}", "/proc/self/root{canary}", "/proc/1/cwd"])
async def test_etc_of_the_image_is_a_link(crid: Crid, forge: Forge, canary: Path, etc: str) -> None:
    """R17, O5: hosts, hostname, resolv.conf (and mtab, where a runtime makes one) go into the image's own tree."""
    image = await forge.image([symlink("etc", etc.replace("{canary}", str(canary)))])
    pod = await crid.run_pod(hostname="me")
    try:
        id = await crid.run(pod, image, ["sleep", "100"])
    except CriError:
        return
    assert (await crid.exec(id, "cat", "/etc/hostname"))[1] == "me\n"


async def test_files_of_etc_are_links(crid: Crid, forge: Forge, canary: Path) -> None:
    """R17, O5: CVE-2025-24965, CVE-2024-5154."""
    names = ("hosts", "hostname", "resolv.conf", "mtab")
    image = await forge.image([symlink(f"etc/{name}", f"{canary}/{name}") for name in names])
    id = await crid.run(await crid.run_pod(hostname="me"), image, ["sleep", "100"])
    assert (await crid.exec(id, "cat", "/etc/hostname"))[1] == "me\n"


@pytest.mark.parametrize("name", ["null", "console", "ptmx", "zero", "pts", "shm"])
@pytest.mark.parametrize("tty", [False, True])
async def test_devices_that_the_image_has_replaced(
    crid: Crid, forge: Forge, canary: Path, name: str, tty: bool
) -> None:
    """R12, R13: CVE-2025-31133, CVE-2025-52565."""
    image = await forge.image([directory("dev"), symlink(f"dev/{name}", str(canary / "file"))])
    id = await crid.run(await crid.run_pod(), image, ["sleep", "100"], tty=tty)
    said = (await crid.exec(id, "sh", "-c", "stat -c %t:%T /dev/null; cat /proc/timer_list /proc/keys | wc -c"))[1]
    assert said == "1:3\n0\n"


async def test_masks_stay_when_the_null_device_is_swapped_inside(crid: Crid, hostile: str) -> None:
    """R12 for what starts later: the cover is the host's device and not what /dev/null of a container is."""
    pod = await crid.run_pod()
    script = "rm /dev/null; ln -s /proc/sys/kernel/core_pattern /dev/null; echo ready; sleep 100"
    first = await crid.run(pod, hostile, ["sh", "-c", script])
    await said(crid, pod, "ready")
    refused = await crid.exec_fails(first, "true")
    assert "dev/null" in refused
    second = await crid.run(pod, hostile, ["sleep", "100"], name="second")
    assert await crid.exec(second, "sh", "-c", "echo x > /proc/timer_list; cat /proc/timer_list") == (0, "", "")


async def swapping(crid: Crid, pod: tuple[str, api.PodSandboxConfig], image: str, shared: Path, canary: Path) -> None:
    """A container that exchanges a directory of a shared volume for a link to the canary, without end."""
    (shared / "real/deep").mkdir(parents=True)
    (shared / "link").symlink_to(canary)
    await crid.run(pod, image, ["attacker", "swap", "/s/real", "/s/link"], mounts=[volume(shared, "/s")], name="swap")
    async with asyncio.timeout(10):
        while len({(shared / "real").is_symlink() for _ in range(1000)}) < 2:  # noqa: ASYNC110 - asked, not told
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("place", ["/s/real/deep", "/s/real/missing/more", "/s/real/../real/deep", "/s/link/x"])
async def test_the_place_of_a_volume_is_swapped_for_a_link(
    crid: Crid, hostile: str, canary: Path, tmp_path: Path, place: str
) -> None:
    """R4, R5, R11: CVE-2019-19921, CVE-2021-30465, CVE-2023-27561, CVE-2024-45310."""
    pod = await crid.run_pod()
    await swapping(crid, pod, hostile, tmp_path / "shared", canary)
    (tmp_path / "mine").mkdir()
    mounts = [volume(tmp_path / "shared", "/s"), volume(tmp_path / "mine", place)]
    started = 0
    for number in range(STARTS):
        try:
            await crid.run(pod, hostile, ["true"], mounts=mounts, name=f"n{number}")
            started += 1
        except CriError:
            continue  # refused is as good as contained
    assert os.listdir(canary) == ["file"], started


async def test_a_source_that_becomes_a_link_after_the_look(
    crid: Crid, hostile: str, canary: Path, tmp_path: Path
) -> None:
    """K1, without a race: what CreateContainer has resolved is what StartContainer mounts, or nothing is."""
    pod = await crid.run_pod()
    (tmp_path / "v/sub").mkdir(parents=True)
    id = await crid.create(pod, hostile, ["ls", "/v"], mounts=[volume(tmp_path / "v/sub", "/v")])
    (tmp_path / "v/sub").rmdir()
    (tmp_path / "v/sub").symlink_to(canary)
    with pytest.raises(CriError, match="no link in it when the container was created"):
        await crid.cri.StartContainer(container_id=id)


async def test_an_image_volume_that_climbs(crid: Crid, forge: Forge, canary: Path) -> None:
    """C5, CVE-2022-23648: VOLUME of an image config is not a path of the host."""
    places = {f"/../../../../../../..{canary}": {}, "/link": {}, "/../x": {}}
    image = await forge.image([symlink("link", str(canary))], Volumes=places)
    id = await crid.run(await crid.run_pod(), image, ["sleep", "100"])
    code, said, _ = await crid.exec(id, "sh", "-c", f"ls {canary} /link/ /x; find / -xdev -name file")
    assert "file" not in said, code


@pytest.mark.parametrize("sub_path", ["../../../../etc", "link", "a/../../..", "/../.."])
async def test_a_sub_path_of_an_image_volume_that_climbs(
    crid: Crid, forge: Forge, hostile: str, canary: Path, sub_path: str
) -> None:
    """K1 and C5 for image volumes."""
    image = await forge.image([directory("a"), regular("a/b", b"x"), symlink("link", str(canary))])
    mount = api.Mount(container_path="/v", image={"image": image}, image_sub_path=sub_path, readonly=True)
    pod = await crid.run_pod()
    try:
        id = await crid.run(pod, hostile, ["sleep", "100"], mounts=[mount])
    except CriError:
        return
    code, said, _ = await crid.exec(id, "ls", "/v")
    assert "file" not in said.split(), code


async def test_an_administrator_inside_cannot_reach_a_release_agent(crid: Crid, hostile: str, canary: Path) -> None:
    """R19, CVE-2022-0492: with every mount that the default capabilities allow, and with one more."""
    pod = await crid.run_pod()
    for name, linux in (("plain", security()), ("chroot", capabilities("SYS_CHROOT", "MKNOD", "DAC_READ_SEARCH"))):
        id = await crid.run(pod, hostile, ["sleep", "100"], linux=linux, name=name)
        script = (
            "for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs); do"
            f"  echo {canary}/agent > $f && echo WROTE $f; done 2>/dev/null;"
            "mkdir /sys/fs/cgroup/memory/x && echo MADE; mkdir /m; mount -t cgroup -o memory c /m && echo MOUNTED; true"
        )
        assert (await crid.exec(id, "sh", "-c", script))[1] == ""
