"""Images that attack whoever unpacks them, pulled by crid; each entry on its own is tried in tests/kernel/images."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from pathlib import Path

import pytest

from cri.client import CriError
from images.build import hardlink, regular, symlink
from images.media import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from tests.escapes.conftest import Forge
from tests.support.crid import Crid
from tests.support.images import Layer, push_image
from tests.support.registry import Registry
from tests.support.tars import raw_entry, tar

FILE, LINK, DIRECTORY = b"0", b"1", b"5"
TOGETHER = 6


def layers_of(canary: Path) -> dict[str, list[Layer]]:
    """Stacks whose last layer wants to change what lies outside."""
    out = os.fsencode(canary)
    climbing = b"../" * 12 + out[1:]
    return {
        "name": [tar(raw_entry(climbing + b"/file", FILE, b"overwritten"))],
        "through a link": [tar(symlink("x", str(canary)), raw_entry(b"x/file", FILE, b"overwritten", mode=0o4777))],
        "link in a lower layer": [[symlink("x", str(canary))], tar(raw_entry(b"x/file", FILE, b"overwritten"))],
        "hard link": [tar(raw_entry(b"y", LINK, link=out + b"/file"), raw_entry(b"y", FILE, b"overwritten"))],
        "mode of a link": [tar(symlink("x", f"{canary}/file"), hardlink("y", "x"), raw_entry(b"y", LINK, link=b"x"))],
        "whiteout": [[symlink("x", str(canary))], tar(raw_entry(b"x/.wh.file"), raw_entry(b"x/.wh..wh..opq"))],
        "directory": [tar(symlink("x", str(canary)), raw_entry(b"x/", DIRECTORY, mode=0o777, uid=1000))],
    }


@pytest.mark.parametrize("kind", layers_of(Path("/")))
async def test_layers_that_reach_outside(crid: Crid, forge: Forge, canary: Path, kind: str) -> None:
    """C2, C9, O5: CVE-2021-32760, CVE-2025-47290."""
    try:
        image = await forge.image(*layers_of(canary)[kind])
    except CriError:
        assert list((crid.root / "snapshots/unpacking").iterdir()) == []
        return
    id = await crid.run(await crid.run_pod(), image, ["sleep", "100"])
    said = (await crid.exec(id, "sh", "-c", f"cat {canary}/file x/file y"))[1]
    assert "untouched" not in said


async def test_hostile_layers_at_once(crid: Crid, registry: Registry, canary: Path) -> None:
    """C9: the same layers, unpacked beside each other, with a file where the others have a link."""
    stacks: list[list[Layer]] = []
    for number in range(TOGETHER):
        swap = symlink("x", str(canary)) if number % 2 else regular("x/file", b"mine")
        stacks.append([[swap], tar(raw_entry(b"x/file", FILE, b"overwritten"), regular(f"own{number}", b"1"))])
    pushed = [push_image(registry, f"beside{number}:1", stack) for number, stack in enumerate(stacks)]
    pulls = (crid.cri.PullImage(image={"image": image.ref}) for image in pushed)
    await asyncio.gather(*pulls, return_exceptions=True)
    assert list((crid.root / "snapshots/unpacking").iterdir()) == []


@pytest.mark.parametrize("digest", ["sha256:../../x", "sha256:" + "../" * 21 + "x", "sha256:", "md5:" + "0" * 32])
async def test_digests_that_are_paths(crid: Crid, registry: Registry, digest: str) -> None:
    """C20, CVE-2024-3727: of a layer, of a config, and of the image's name."""
    known = push_image(registry, "digests:good", [[regular("a", b"a")]])
    with pytest.raises(CriError):
        await crid.cri.PullImage(image={"image": f"{registry.host}/digests@{digest}"})
    layer = {"mediaType": OCI_LAYER, "digest": digest, "size": 10}
    config = {"mediaType": OCI_CONFIG, "digest": known.image_id, "size": 10}
    for broken in ({"config": config, "layers": [layer]}, {"config": {**config, "digest": digest}, "layers": []}):
        document = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, **broken}).encode()
        try:
            registry.push_manifest("digests", "bad", document, OCI_MANIFEST)
        except AssertionError:
            continue  # the registry itself has refused it
        with pytest.raises(CriError):
            await crid.cri.PullImage(image={"image": f"{registry.host}/digests:bad"})


async def test_a_layer_that_grows_without_end(crid: Crid, registry: Registry) -> None:
    """C8, CVE-2023-25153: 4 GiB of zeros in 4 MB are refused while they are unpacked, and leave nothing."""
    member = gzip.compress(bytes(64 << 20), 9)
    blob = gzip.compress(raw_header(b"big", 4 << 30)) + member * 64
    digest = registry.push_blob("growing", blob)
    good = push_image(registry, "growing:base", [[regular("a", b"a")]])
    _, _, config = registry.request("GET", f"/v2/growing/blobs/{good.image_id}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": good.image_id, "size": len(config)},
        "layers": [{"mediaType": f"{OCI_LAYER}+gzip", "digest": digest, "size": len(blob)}],
    }
    registry.push_manifest("growing", "1", manifest, OCI_MANIFEST)
    with pytest.raises(CriError, match="bomb"):
        await crid.cri.PullImage(image={"image": f"{registry.host}/growing:1"})
    assert list((crid.root / "snapshots/unpacking").iterdir()) == []


def raw_header(name: bytes, size: int) -> bytes:
    """A tar header that promises `size` bytes, which the caller has to deliver."""
    header = bytearray(raw_entry(name, FILE, b"")[:512])
    header[124:136] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
