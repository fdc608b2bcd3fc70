"""Pulling from a real registry: what was pushed by other means is found, verified, unpacked and shared."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
from pathlib import Path

import pytest

from images import Auth, ImageStore, Progress
from images.build import directory, regular
from images.errors import ImageNotFound, InvalidReference, RegistryError, Unauthorized, UnsupportedImage
from images.platform import Platform
from runtime.linux.ledger import Ledger
from tests.support.images import busybox_rootfs, push_image, push_index
from tests.support.registry import PASSWORD, USER, Registry


def run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout


async def root_of(store: ImageStore, name: str, key: str = "c1") -> Path:
    """The top layer of an image."""
    image = store.get(name)
    assert image is not None
    return Path((await store.containers.prepare(key, image.id)).lower[0])


@pytest.mark.parametrize("form", ["gzip", "zstd", "plain"])
@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
async def test_every_form_of_layer(store: ImageStore, registry: Registry, form: str, docker: bool) -> None:
    pushed = push_image(
        registry, f"forms:{form}-{docker}", form=form, docker=docker, config={"Cmd": ["sh"], "User": "5"}
    )
    image = await store.pull(pushed.ref)
    assert (image.id, image.repo_tags) == (pushed.image_id, (pushed.ref,))
    assert image.repo_digests == (f"{registry.host}/forms@{pushed.digest}",)
    assert (image.config, image.user, image.platform) == ({"Cmd": ["sh"], "User": "5"}, "5", str(Platform.host()))
    root = await root_of(store, pushed.ref)
    assert run(str(root / "bin/echo"), "it runs") == "it runs\n"
    assert os.stat(root / "bin/sh").st_nlink > 200
    assert os.stat(root / "tmp").st_mode & 0o7777 == 0o1777


async def test_names_of_one_image(store: ImageStore, registry: Registry) -> None:
    pushed = push_image(registry, "names:1")
    push_image(registry, "names:2")
    digest = f"{registry.host}/names@{pushed.digest}"
    for name in (pushed.ref, f"{registry.host}/names:2", digest):
        assert (await store.pull(name)).id == pushed.image_id
    (image,) = store.list()
    assert image.repo_tags == (f"{registry.host}/names:1", f"{registry.host}/names:2")
    assert image.repo_digests == (digest,)


async def test_an_index_leads_to_this_platform(store: ImageStore, registry: Registry) -> None:
    ours = push_image(registry, "many:ours", [[regular("ours", b"1")]])
    other = push_image(registry, "many:other", [[regular("other", b"2")]], platform=Platform("linux", "s390x"))
    for docker in (False, True):
        digest = push_index(
            registry, f"many:{docker}", {"linux/s390x": other, str(Platform.host()): ours}, docker=docker
        )
        image = await store.pull(f"{registry.host}/many:{docker}")
        assert image.id == ours.image_id
        assert f"{registry.host}/many@{digest}" in image.repo_digests
    pulled = await store.pull(f"{registry.host}/many:False", platform=Platform("linux", "s390x"))
    assert pulled.id == other.image_id


async def test_no_image_for_this_platform(store: ImageStore, registry: Registry) -> None:
    other = push_image(registry, "foreign:1", [[regular("x", b"x")]], platform=Platform("linux", "s390x"))
    push_index(registry, "foreign:index", {"linux/s390x": other})
    for name, says in (("foreign:1", "an image for linux/s390x"), ("foreign:index", "only for linux/s390x")):
        with pytest.raises(UnsupportedImage, match=says):
            await store.pull(f"{registry.host}/{name}")
    assert store.list() == []


async def test_images_of_other_tools(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    """umoci makes it, skopeo converts and pushes it; we get the id that skopeo tells."""
    layout = str(tmp_path / "layout")
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:one")
    for number in range(3):
        (tmp_path / f"file{number}").write_text(f"{number}")
        run("umoci", "insert", "--image", f"{layout}:one", str(tmp_path / f"file{number}"), f"/data/file{number}")
    for number, options in enumerate((["--format", "oci"], ["--format", "v2s2"], ["--dest-compress-format", "zstd"])):
        target = f"{registry.host}/tools:{number}"
        run("skopeo", "copy", "--dest-tls-verify=false", *options, f"oci:{layout}:one", f"docker://{target}")
        image = await store.pull(target)
        manifest = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{target}")
        assert image.id in manifest
        rootfs = await store.containers.prepare(f"c{number}", image.id)
        names = {name for layer in rootfs.lower for name in os.listdir(f"{layer}/data")}
        assert names == {"file0", "file1", "file2"}


async def test_ten_at_once_are_one_download(store: ImageStore, registry: Registry) -> None:
    pushed = push_image(registry, "ten:1", [busybox_rootfs(), [regular("a", os.urandom(1 << 20))]])
    before = len(registry.log)
    images = await asyncio.gather(*(store.pull(pushed.ref) for _ in range(10)))
    assert {image.id for image in images} == {pushed.image_id}
    served = registry.log[before:]
    for blob in pushed.blobs:
        assert served.count(f'"GET /v2/ten/blobs/{blob} ') == 1
    assert served.count('"GET /v2/ten/manifests/1 ') == 1


async def test_many_tags_of_one_image_at_once(store: ImageStore, registry: Registry, ledger: Ledger) -> None:
    """They share manifest, config and layers, and none gets in another's way."""
    names = [push_image(registry, f"tags:{number}").ref for number in range(8)]
    images = await asyncio.gather(*(store.pull(name) for name in names))
    assert len({image.id for image in images}) == 1
    (image,) = store.list()
    assert image.repo_tags == tuple(names)
    assert ledger.entries("ingest") == []


async def test_shared_layers_are_neither_fetched_nor_unpacked_again(store: ImageStore, registry: Registry) -> None:
    base = [directory("etc", 0o755), regular("etc/base", os.urandom(100_000))]
    one = push_image(registry, "shared:one", [base, [regular("one", b"1")]])
    two = push_image(registry, "shared:two", [base, [regular("two", b"2")]])
    first = await store.pull(one.ref)
    before = len(registry.log)
    second = await store.pull(two.ref)
    assert first.layers[0] == second.layers[0]
    assert one.blobs[0] not in registry.log[before:]
    assert two.blobs[1] in registry.log[before:]
    lower = [(await store.containers.prepare(key, image.id)).lower for key, image in (("c1", first), ("c2", second))]
    assert lower[0][1] == lower[1][1]
    assert lower[0][0] != lower[1][0]


async def test_a_pull_of_what_is_here_fetches_a_manifest_only(store: ImageStore, registry: Registry) -> None:
    pushed = push_image(registry, "again:1")
    await store.pull(pushed.ref)
    before = len(registry.log)
    assert (await store.pull(pushed.ref)).id == pushed.image_id
    assert "/blobs/" not in registry.log[before:]


async def test_progress_reaches_the_whole(store: ImageStore, registry: Registry) -> None:
    pushed = push_image(registry, "progress:1", [[regular("a", os.urandom(3 << 20))], [regular("b", b"b")]])
    seen: list[Progress] = []
    await store.pull(pushed.ref, progress=seen.append)
    assert all(one.done <= two.done for one, two in itertools.pairwise(seen))
    assert seen[-1].done == seen[-1].total > 3 << 20
    assert seen[-1].reference == pushed.ref


async def test_a_tag_that_moved(store: ImageStore, registry: Registry) -> None:
    old = push_image(registry, "moved:1", [[regular("old", b"old")]])
    await store.pull(old.ref)
    new = push_image(registry, "moved:1", [[regular("new", b"new")]])
    await store.pull(new.ref)
    found = {image.id: image.repo_tags for image in store.list()}
    assert found == {old.image_id: (), new.image_id: (new.ref,)}


async def test_an_image_without_layers(store: ImageStore, registry: Registry) -> None:
    body = b'{"os":"linux","architecture":"%s","rootfs":{"type":"layers","diff_ids":[]}}' % (
        Platform.host().architecture.encode()
    )
    config = registry.push_blob("scratch", body)
    kind = "application/vnd.oci.image.manifest.v1+json"
    descriptor = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": len(body)}
    registry.push_manifest(
        "scratch", "1", {"schemaVersion": 2, "config": descriptor, "layers": [], "mediaType": kind}, kind
    )
    image = await store.pull(f"{registry.host}/scratch:1")
    (lower,) = (await store.containers.prepare("c1", image.id)).lower
    assert os.listdir(lower) == []


@pytest.mark.parametrize("name", ["nothing:1", "pull:nothing", f"pull@sha256:{'0' * 64}"])
async def test_unknown_images(store: ImageStore, registry: Registry, name: str) -> None:
    push_image(registry, "pull:1")
    with pytest.raises(ImageNotFound, match="not found in the registry") as caught:
        await store.pull(f"{registry.host}/{name}")
    assert registry.host in str(caught.value)


async def test_a_registry_that_is_down(store: ImageStore, tmp_path: Path) -> None:
    with Registry(tmp_path / "down") as registry:
        pushed = push_image(registry, "down:1")
    with pytest.raises(RegistryError, match="cannot talk to") as caught:
        await store.pull(pushed.ref)
    assert (caught.value.host, caught.value.status) == (registry.host, 0)
    with registry:
        assert (await store.pull(pushed.ref)).id == pushed.image_id


@pytest.mark.parametrize("name", ["", "UPPER", "a b", "x:y:z", "../../etc/passwd"])
async def test_names_that_are_none(store: ImageStore, name: str) -> None:
    with pytest.raises(InvalidReference):
        await store.pull(name)


async def test_basic_authentication(store: ImageStore, tmp_path: Path) -> None:
    with Registry(tmp_path / "private", auth=True) as private:
        pushed = push_image(private, "secret:1")
        for wrong in (None, Auth(USER, "wrong"), Auth(USER, PASSWORD, server_address="other.example")):
            with pytest.raises(Unauthorized, match="credentials") as caught:
                await store.pull(pushed.ref, auth=wrong)
            assert caught.value.status == 401
            assert PASSWORD not in str(caught.value)
        for right in (Auth(USER, PASSWORD), Auth(USER, PASSWORD, server_address=f"http://{private.host}/v1/")):
            assert (await store.pull(pushed.ref, auth=right)).id == pushed.image_id


async def test_a_mirror_is_asked_first_and_the_registry_when_it_fails(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    """The reference names a host that does not exist; only its mirrors can be meant."""
    pushed = push_image(registry, "mirrored:1")
    with Registry(tmp_path / "mirror") as mirror:
        push_image(mirror, "mirrored:1")
        folder = tmp_path / "certs.d" / "registry.invalid"
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(f'server = "http://{registry.host}"\n[host."http://{mirror.host}"]\n')
        before = len(registry.log)
        image = await store.pull("registry.invalid/mirrored:1")
        assert image.repo_tags == ("registry.invalid/mirrored:1",)
        assert "?ns=registry.invalid" in mirror.log
        assert "/v2/mirrored/" not in registry.log[before:]
        await store.remove(image.id)
    assert (await store.pull("registry.invalid/mirrored:1")).id == pushed.image_id
    assert "/v2/mirrored/blobs/" in registry.log[before:]
    assert "ns=" not in registry.log


async def test_a_mirror_without_resolve_is_asked_for_digests_only(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    push_image(registry, "bydigest:1", [[regular("right", b"right")]])
    with Registry(tmp_path / "mirror") as mirror:
        lie = push_image(mirror, "bydigest:1", [[regular("wrong", b"wrong")]])
        folder = tmp_path / "certs.d" / "_default"
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(
            f'server = "http://{registry.host}"\n[host."http://{mirror.host}"]\ncapabilities = ["pull"]\n'
        )
        await store.pull("registry.invalid/bydigest:1")
        assert (await root_of(store, "registry.invalid/bydigest:1") / "right").exists()
        assert (await store.pull(f"registry.invalid/bydigest@{lie.digest}")).id == lie.image_id


async def test_nothing_is_left_open_in_the_ledger(store: ImageStore, registry: Registry, ledger: Ledger) -> None:
    pushed = push_image(registry, "ledger:1")
    image = await store.pull(pushed.ref)
    assert ledger.entries("ingest") == []
    assert [entry.detail["chain_id"] for entry in ledger.entries("snapshot")] == list(image.layers)
    await store.remove(image.id)
    assert ledger.entries() == []
