"""ImageService through the socket, against a real docker-registry."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from pathlib import Path

import pytest

from cri.client import CriError
from images.platform import Platform
from tests.support.crid import Crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import PASSWORD, USER, Registry


async def test_pull_list_status_remove(crid: Crid, registry: Registry) -> None:
    one = push_image(registry, "app:1", [busybox_rootfs()], {"Cmd": ["sh"], "User": "1002"})
    two = push_image(registry, "other/name:2", [busybox_rootfs()], {"Cmd": ["sh"], "User": "1002"})
    assert one.image_id == two.image_id
    refs = [(await crid.cri.PullImage(image={"image": pushed.ref})).image_ref for pushed in (one, two)]
    assert refs == [one.image_id, one.image_id]
    found = [image for image in (await crid.cri.ListImages()).images if image.id == one.image_id]
    assert len(found) == 1
    assert sorted(found[0].repo_tags) == sorted([one.ref, two.ref])
    answer = await crid.cri.ImageStatus(image={"image": one.ref}, verbose=True)
    status, spec = answer.image, json.loads(answer.info["info"])["imageSpec"]
    assert (spec["os"], spec["config"]["User"]) == ("linux", "1002")
    assert spec["architecture"] == Platform.host().architecture
    assert (status.id, status.uid.value, status.username) == (one.image_id, 1002, "")
    assert status.size > 0
    streamed = [image.id async for message in crid.cri.StreamImages() for image in message.images]
    assert one.image_id in streamed
    await crid.cri.RemoveImage(image={"image": two.ref})
    assert not (await crid.cri.ImageStatus(image={"image": one.ref})).HasField("image")
    await crid.cri.RemoveImage(image={"image": two.ref})


async def test_concurrent_pulls_of_one_image(crid: Crid, registry: Registry) -> None:
    pushed = push_image(registry, "shared:1", [busybox_rootfs()], {"Cmd": ["concurrent"]})
    answers = await asyncio.gather(*(crid.cri.PullImage(image={"image": pushed.ref}) for _ in range(8)))
    assert {answer.image_ref for answer in answers} == {pushed.image_id}
    await crid.cri.RemoveImage(image={"image": pushed.ref})


async def test_pulls_that_fail(crid: Crid, registry: Registry) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    crid.trust_plain_http(f"127.0.0.1:{port}")
    cases = {
        f"{registry.host}/no/such:1": "NOT_FOUND",
        f"127.0.0.1:{port}/down:1": "UNAVAILABLE",
        "Not A Reference": "INVALID_ARGUMENT",
        "": "INVALID_ARGUMENT",
    }
    for reference, code in cases.items():
        with pytest.raises(CriError) as caught:
            await crid.cri.PullImage(image={"image": reference})
        assert caught.value.code == code, reference
        assert reference.rpartition(":")[0] in caught.value.details


async def test_credentials(crid: Crid, tmp_path: Path) -> None:
    with Registry(tmp_path / "private", auth=True) as private:
        crid.trust_plain_http(private.host)
        pushed = push_image(private, "secret:1", [busybox_rootfs()], {"Cmd": ["private"]})
        with pytest.raises(CriError) as caught:
            await crid.cri.PullImage(image={"image": pushed.ref})
        assert caught.value.code == "UNAUTHENTICATED"
        for wrong in ({"auth": "no base64"}, {"username": USER, "password": PASSWORD, "server_address": "elsewhere"}):
            with pytest.raises(CriError) as caught:
                await crid.cri.PullImage(image={"image": pushed.ref}, auth=wrong)
            assert caught.value.code in ("INVALID_ARGUMENT", "UNAUTHENTICATED")
        both = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        for auth in ({"username": USER, "password": PASSWORD}, {"auth": both, "server_address": private.host}):
            image = {"image": pushed.ref, "annotations": {"a": "b"}}
            answer = await crid.cri.PullImage(image=image, auth=auth, sandbox_config=crid.pod_config())
            assert answer.image_ref == pushed.image_id
        assert PASSWORD not in crid.tail(1 << 20)
        await crid.cri.RemoveImage(image={"image": pushed.ref})


async def test_a_container_keeps_its_files_when_its_image_is_removed(crid: Crid, registry: Registry) -> None:
    pushed = push_image(registry, "gone:1", [busybox_rootfs()], {"Cmd": ["sleep", "1000"], "Env": ["GONE=1"]})
    await crid.cri.PullImage(image={"image": pushed.ref})
    id = await crid.run(await crid.run_pod(), pushed.ref, [])
    await crid.cri.RemoveImage(image={"image": pushed.ref})
    assert (await crid.exec(id, "cat", "/etc/passwd"))[0] == 0
    assert (await crid.status(id)).image_id == pushed.image_id


async def test_the_file_system_of_images(crid: Crid, busybox: str) -> None:
    info = await crid.cri.ImageFsInfo()
    [filesystem] = info.image_filesystems
    assert filesystem.used_bytes.value > 0
    assert filesystem.inodes_used.value > 0
    assert Path(filesystem.fs_id.mountpoint).is_dir()
    id = await crid.run(await crid.run_pod(), busybox, ["sh", "-c", "head -c 3000000 /dev/zero > /file"])
    await crid.ended(id)
    [written] = (await crid.cri.ImageFsInfo()).container_filesystems
    assert 3_000_000 <= written.used_bytes.value < filesystem.used_bytes.value + 3_000_000
    assert written.fs_id == filesystem.fs_id


async def test_pull_by_digest(crid: Crid, registry: Registry) -> None:
    pushed = push_image(registry, "pinned:1", [busybox_rootfs()], {"Cmd": ["digest"]})
    reference = f"{registry.host}/pinned@{pushed.digest}"
    await crid.cri.PullImage(image={"image": reference})
    image = (await crid.cri.ImageStatus(image={"image": reference})).image
    assert (list(image.repo_tags), list(image.repo_digests)) == ([], [reference])
    await crid.cri.RemoveImage(image={"image": reference})
    assert not (await crid.cri.ImageStatus(image={"image": reference})).HasField("image")


async def test_a_container_says_what_its_images_are_called(crid: Crid, registry: Registry) -> None:
    """The kubelet names images by the id that PullImage has answered with; people want to read a name."""
    pushed = push_image(registry, "called:1", [busybox_rootfs()], {"Cmd": ["sleep", "1000"], "Env": ["CALLED=1"]})
    await crid.cri.PullImage(image={"image": pushed.ref})
    pod = await crid.run_pod()
    by_id = {"image": pushed.image_id}
    volume = {"container_path": "/volume", "image": by_id}
    one = await crid.create(pod, pushed.image_id, [], name="by-id", mounts=[volume])
    two = await crid.create(pod, "", [], name="as-written", image={**by_id, "user_specified_image": "called"})
    digest = f"{registry.host}/called@{pushed.digest}"
    status = await crid.status(one)
    assert (status.image.image, status.image_ref, status.image_id) == (pushed.ref, digest, pushed.image_id)
    assert status.mounts[0].image.image_ref == digest
    assert (await crid.status(two)).image.image == "called"
    listed = (await crid.cri.ListContainers(filter={"id": one})).containers[0]
    assert (listed.image.image, listed.image_id, listed.image_ref) == (pushed.image_id,) * 3
    await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    await crid.cri.RemoveImage(image={"image": pushed.ref})
