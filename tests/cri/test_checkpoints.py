"""Checkpoint and restore through the socket, with a criu that works on this kernel."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.crid import Crid, Sandbox
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

COUNT = "i=0; while :; do i=$((i+1)); echo count $i; echo $i > /count; sleep 0.1; done"
OWN_PIDS = {"security_context": {"namespace_options": {"pid": api.CONTAINER}}}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def daemon(checkpointing: Crid) -> Crid:
    return checkpointing


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busybox(daemon: Crid, registry: Registry) -> str:
    pushed = push_image(registry, "busybox:1", [busybox_rootfs()], {"Cmd": ["sh"], "Env": ["FROM=image"]})
    await daemon.cri.PullImage(image={"image": pushed.ref})
    return pushed.ref


async def counted(crid: Crid, pod: Sandbox, at_least: int, name: str = "main") -> int:
    """Wait until the log shows this count: the highest one."""
    for _ in range(300):
        numbers = [int(line.split()[-1]) for line in crid.log_of(pod[1], name).splitlines() if line.startswith("count")]
        if numbers and numbers[-1] >= at_least:
            return numbers[-1]
        await asyncio.sleep(0.05)
    raise AssertionError(f"no count of {at_least}: {crid.log_of(pod[1], name)[-500:]}")


async def checkpoint(crid: Crid, container: str, name: str = "one") -> Path:
    location = crid.base / f"{name}.tar"
    location.unlink(missing_ok=True)
    await crid.cri.CheckpointContainer(container_id=container, location=str(location), timeout=60)
    return location


def rewritten(archive: Path, changes: dict[str, bytes | tarfile.TarInfo | None]) -> Path:
    """A copy with some entries replaced, added or (None) removed."""
    target = archive.with_name("hostile.tar")
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for entry in old:
            if entry.name not in changes:
                new.addfile(entry, old.extractfile(entry))
        for name, content in changes.items():
            if isinstance(content, tarfile.TarInfo):
                new.addfile(content)
            elif content is not None:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                new.addfile(entry, io.BytesIO(content))
    return target


def read(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        content = tar.extractfile(name)
        assert content is not None
        return content.read()


def nothing_is_left(crid: Crid) -> None:
    assert list((crid.root / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("pid", [api.CONTAINER, api.POD])
async def test_a_count_goes_on_in_another_pod(crid: Crid, busybox: str, pid: api.NamespaceMode) -> None:
    options = {"security_context": {"namespace_options": {"pid": pid}}}
    pod = await crid.run_pod(crid.pod_config("first", linux=options))
    id = await crid.run(pod, busybox, ["sh", "-c", COUNT])
    await counted(crid, pod, 3)
    archive = await checkpoint(crid, id)
    seen = await counted(crid, pod, 5)  # it runs on
    other = await crid.run_pod(crid.pod_config("second", linux=options))
    again = await crid.create(other, str(archive), [])
    assert (await crid.status(again)).state == api.CONTAINER_CREATED
    await crid.cri.StartContainer(container_id=again)
    await counted(crid, other, seen + 3)
    assert crid.log_of(other[1]).splitlines()[0] != "count 1"
    assert await crid.exec(again, "hostname") == (0, "second\n", "")
    code, output, _ = await crid.exec(again, "cat", "/count")
    assert code == 0 and int(output) >= seen
    nothing_is_left(crid)
    await crid.cri.StopContainer(api.StopContainerRequest(container_id=again))
    assert (await crid.status(again)).exit_code == 137


async def test_what_the_archive_holds(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.run(pod, busybox, ["sh", "-c", f"rm /etc/group; {COUNT}"])
    await counted(crid, pod, 1)
    archive = await checkpoint(crid, id)
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    config = json.loads(read(archive, "config.dump"))
    assert (config["id"], config["name"]) == (id, "main")
    assert config["rootfsImageName"] == busybox and config["checkpointedTime"].endswith("Z")
    annotations = json.loads(read(archive, "spec.dump"))["annotations"]
    assert annotations["io.kubernetes.cri.sandbox-name"] == pod[1].metadata.name
    assert b"finished successfully" in read(archive, "dump.log")
    with tarfile.open(fileobj=io.BytesIO(read(archive, "rootfs-diff.tar"))) as changes:
        assert {"count", "etc/.wh.group"} <= set(changes.getnames())
    assert json.loads(read(archive, "status.dump"))["id"] == id


async def test_files_come_along(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(linux=OWN_PIDS)
    script = f"rm -r /home; mkdir -p /new/deep; echo kept > /new/deep/file; ln -s deep /new/link; {COUNT}"
    id = await crid.run(pod, busybox, ["sh", "-c", script])
    await counted(crid, pod, 1)
    archive = await checkpoint(crid, id)
    again = await crid.run(await crid.run_pod(linux=OWN_PIDS), str(archive), [])
    assert await crid.exec(again, "cat", "/new/link/file") == (0, "kept\n", "")
    assert (await crid.exec(again, "ls", "-d", "/home"))[0] != 0


async def test_a_terminal(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.run(pod, busybox, ["sh", "-c", COUNT], tty=True, stdin=True)
    await counted(crid, pod, 2)
    archive = await checkpoint(crid, id)
    other = await crid.run_pod(linux=OWN_PIDS)
    again = await crid.run(other, str(archive), [], tty=True, stdin=True)
    await counted(crid, other, 5)
    assert (await crid.exec(again, "stat", "-L", "-c", "%t:%T", "/proc/1/fd/1"))[1] == "88:0\n"  # 136:0, /dev/pts/0


async def test_a_listening_socket_and_a_volume(crid: Crid, busybox: str) -> None:
    volume = crid.base / "volume"
    volume.mkdir(exist_ok=True)
    (volume / "page").write_text("from the volume\n")
    mounts = [{"host_path": str(volume), "container_path": "/data"}]
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.run(pod, busybox, ["httpd", "-f", "-p", "8080", "-h", "/data"], mounts=mounts)
    fetch = ("wget", "-q", "-O", "-", "http://127.0.0.1:8080/page")
    for _ in range(100):
        if (await crid.exec(id, *fetch))[0] == 0:
            break
    archive = await checkpoint(crid, id)
    other = await crid.run_pod(linux=OWN_PIDS)
    again = await crid.run(other, str(archive), [], mounts=mounts)
    assert await crid.exec(again, *fetch) == (0, "from the volume\n", "")
    address = (await crid.cri.PodSandboxStatus(pod_sandbox_id=other[0])).status.network.ip
    assert (await crid.exec(again, *fetch[:-1], f"http://{address}:8080/page"))[1] == "from the volume\n"


async def test_mounts_are_those_of_the_request(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(linux=OWN_PIDS)
    mounts = [{"host_path": "/etc", "container_path": "/host"}]
    id = await crid.run(pod, busybox, ["sh", "-c", COUNT], mounts=mounts)
    archive = await checkpoint(crid, id)
    other = await crid.run_pod(linux=OWN_PIDS)
    with pytest.raises(CriError, match="had a mount at '/host', which the request lacks"):
        await crid.run(other, str(archive), [])
    with pytest.raises(CriError, match="has a mount at '/more', which the checkpointed container lacked"):
        more = [*mounts, {"host_path": "/etc", "container_path": "/more"}]
        await crid.run(other, str(archive), [], mounts=more, name="more")


async def test_a_checkpoint_gives_no_more_than_the_request(crid: Crid, busybox: str) -> None:
    """A process with more capabilities than the container may have never runs."""
    privileged = {"security_context": {"privileged": True, **OWN_PIDS["security_context"]}}
    pod = await crid.run_pod(crid.pod_config(linux=privileged))
    add = {"security_context": {"capabilities": {"add_capabilities": ["SYS_ADMIN"]}}}
    id = await crid.run(pod, busybox, ["sh", "-c", COUNT], linux=add)
    archive = await checkpoint(crid, id)
    other = await crid.run_pod(linux=OWN_PIDS)
    again = await crid.create(other, str(archive), [])
    with pytest.raises(CriError, match="capabilities beyond the container's"):
        await crid.cri.StartContainer(container_id=again)
    assert (await crid.status(again)).state == api.CONTAINER_EXITED
    assert crid.log_of(other[1]) == ""


async def test_a_filter_is_the_containers_own(crid: Crid, busybox: str) -> None:
    profile = {"security_context": {"seccomp": {"profile_type": api.SecurityProfile.RuntimeDefault}}}
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.run(pod, busybox, ["sh", "-c", COUNT], linux=profile)
    archive = await checkpoint(crid, id)
    other = await crid.run_pod(linux=OWN_PIDS)
    again = await crid.run(other, str(archive), [], linux=profile)
    assert "Seccomp:\t2" in (await crid.exec(again, "cat", "/proc/1/status"))[1]
    unconfined = await checkpoint(crid, await crid.run(pod, busybox, ["sh", "-c", COUNT], name="free"), "free")
    with pytest.raises(CriError, match="no seccomp filter, which the container has"):
        await crid.run(other, str(unconfined), [], linux=profile, name="hostile")


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "a link for the log": ({"container.log": "link"}, "is no plain file"),
    "a link for the files": ({"rootfs-diff.tar": "link"}, "is no plain file"),
    "a link for the configuration": ({"spec.dump": "link"}, "is no plain file"),
    "a way out": ({"../../etc/cron.d/x": b"* * * * *"}, "which no checkpoint has"),
    "a tar for CRIU to unpack": ({"checkpoint/tmpfs-1.tar.gz.img": b"x"}, "no container of this runtime has"),
    "a network": ({"checkpoint/netns-9.img": b"x"}, "no container of this runtime has"),
    "an image that is not here": (
        {"config.dump": b'{"rootfsImageRef": "sha256:0", "rootfsImageName": "docker.io/library/nginx:latest"}'},
        "pull it first",
    ),
    "no configuration": ({"config.dump": None}, "it has no config.dump"),
    "a configuration too deep": ({"config.dump": b"[" * 100000}, "cannot be read"),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_hostile_archives(crid: Crid, busybox: str, what: str) -> None:
    changes, words = HOSTILE[what]
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.run(pod, busybox, ["sh", "-c", COUNT])
    for name in changes:
        if changes[name] == "link":
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/shadow"
            changes = {**changes, name: entry}
    archive = rewritten(await checkpoint(crid, id), changes)
    images = {image.id: list(image.repo_tags) for image in (await crid.cri.ListImages()).images}
    other = await crid.run_pod(linux=OWN_PIDS)
    with pytest.raises(CriError, match=words):
        await crid.run(other, str(archive), [])
    assert {image.id: list(image.repo_tags) for image in (await crid.cri.ListImages()).images} == images
    for container in (await crid.cri.ListContainers(filter={"pod_sandbox_id": other[0]})).containers:
        await crid.cri.RemoveContainer(container_id=container.id)
    nothing_is_left(crid)


async def test_annotations_and_labels_of_an_archive_mean_nothing(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.run(pod, busybox, ["sh", "-c", COUNT])
    archive = await checkpoint(crid, id)
    spec = json.loads(read(archive, "spec.dump"))
    spec["annotations"] |= {"cdi.k8s.io/gpu": "vendor.com/gpu=all"}
    spec["mounts"].append({"destination": "/host", "type": "bind", "source": "/", "options": ["rbind"]})
    hostile = rewritten(archive, {"spec.dump": json.dumps(spec).encode()})
    again = await crid.run(await crid.run_pod(linux=OWN_PIDS), str(hostile), [])
    status = await crid.status(again)
    assert not status.annotations and not status.labels and not status.mounts
    assert (await crid.exec(again, "ls", "/host"))[0] != 0


@pytest.mark.parametrize(
    ("location", "words"),
    [("relative.tar", "no absolute path"), ("/nowhere/x.tar", "does not exist"), ("{base}/link.tar", "exists")],
)
async def test_locations(crid: Crid, busybox: str, location: str, words: str) -> None:
    link = crid.base / "link.tar"
    if not link.is_symlink():
        link.symlink_to("/etc/nobody-writes-here")
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.run(pod, busybox, ["sleep", "100"])
    with pytest.raises(CriError, match=words):
        await crid.cri.CheckpointContainer(container_id=id, location=location.format(base=crid.base))
    assert not os.path.exists("/etc/nobody-writes-here")


async def test_only_a_running_container(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.create(pod, busybox, ["sleep", "100"])
    with pytest.raises(CriError, match="is CONTAINER_CREATED; only a running one"):
        await checkpoint(crid, id)


async def test_a_pod_and_back(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(crid.pod_config("first", linux=OWN_PIDS))
    ids = [await crid.run(pod, busybox, ["sh", "-c", COUNT], name=name) for name in ("one", "two")]
    await counted(crid, pod, 3, "one")
    directory = crid.base / "pod"
    directory.mkdir()
    request = {"pod_sandbox_id": pod[0], "output_path": str(directory), "container_ids": ids}
    with pytest.raises(CriError, match="'fast' is unknown"):
        await crid.cri.CheckpointPod(**request, options={"fast": "yes"})
    await crid.cri.CheckpointPod(**request)
    assert sorted(os.listdir(directory)) == ["one.tar", "pod.dump", "two.tar"]
    seen = await counted(crid, pod, await counted(crid, pod, 1, "two") + 1, "two")  # all run on
    with pytest.raises(CriError, match="is not empty"):
        await crid.cri.CheckpointPod(**request)
    config = crid.pod_config("second", linux=OWN_PIDS)
    configs = [{"metadata": {"name": name}, "log_path": f"{name}.log"} for name in ("one", "two")]
    configs[0]["image"] = {"image": busybox}
    with pytest.raises(CriError, match="each container once, and no others"):
        await crid.cri.RestorePod(checkpoint_path=str(directory), config=config, container_configs=configs[:1])
    restore = {"checkpoint_path": str(directory), "config": config, "container_configs": configs}
    answer, joined = await asyncio.gather(crid.cri.RestorePod(**restore), crid.cri.RestorePod(**restore))
    assert joined == answer
    with pytest.raises(CriError, match="exists; a checkpoint is restored into a new one") as caught:
        await crid.cri.RestorePod(**restore)
    assert caught.value.code == "ALREADY_EXISTS"
    restored = {each.name: each.container_id for each in answer.restored_containers}
    assert sorted(restored) == ["one", "two"]
    for id in restored.values():
        assert (await crid.status(id)).state == api.CONTAINER_CREATED
        await crid.cri.StartContainer(container_id=id)
    other = (answer.pod_sandbox_id, config)
    for name in restored:
        await counted(crid, other, seen, name)
    nothing_is_left(crid)


async def test_an_archive_does_not_choose_the_image(crid: Crid, busybox: str, registry: Registry) -> None:
    private = push_image(registry, "private:1", [busybox_rootfs()], {"Cmd": ["secret"]}).ref
    await crid.cri.PullImage(image={"image": private})
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.run(pod, private, ["sh", "-c", COUNT], name="one")
    directory = crid.base / "of-another-image"
    directory.mkdir()
    await crid.cri.CheckpointPod(pod_sandbox_id=pod[0], output_path=str(directory), container_ids=[id])
    before = {each.id for each in (await crid.cri.ListPodSandbox()).items}
    for image, code, words in (
        (
            busybox,
            "INVALID_ARGUMENT",
            f"the checkpoint of container one is of image .*, but its configuration names {busybox}",
        ),
        ("never.example/pulled:1", "NOT_FOUND", "is not on this node; pull it first"),
    ):
        configs = [{"metadata": {"name": "one"}, "image": {"image": image}}]
        config = crid.pod_config(linux=OWN_PIDS)
        with pytest.raises(CriError, match=words) as caught:
            await crid.cri.RestorePod(checkpoint_path=str(directory), config=config, container_configs=configs)
        assert caught.value.code == code
    assert {each.id for each in (await crid.cri.ListPodSandbox()).items} == before
    nothing_is_left(crid)


async def test_a_pod_that_cannot_be_restored_leaves_nothing(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.run(pod, busybox, ["sh", "-c", COUNT], name="one")
    directory = crid.base / "broken"
    directory.mkdir()
    await crid.cri.CheckpointPod(pod_sandbox_id=pod[0], output_path=str(directory), container_ids=[id])
    (directory / "one.tar").write_bytes(b"no tar at all" * 100)
    configs = [{"metadata": {"name": "one"}}]
    before = {each.id for each in (await crid.cri.ListPodSandbox()).items}
    with pytest.raises(CriError, match="exists; a checkpoint is restored into a new one"):
        await crid.cri.RestorePod(checkpoint_path=str(directory), config=pod[1], container_configs=configs)
    with pytest.raises(CriError, match="no tar archive"):
        await crid.cri.RestorePod(
            checkpoint_path=str(directory), config=crid.pod_config(linux=OWN_PIDS), container_configs=configs
        )
    assert {each.id for each in (await crid.cri.ListPodSandbox()).items} == before
    nothing_is_left(crid)
