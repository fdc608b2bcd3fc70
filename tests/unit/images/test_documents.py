"""Digests, manifests, indexes and configs: what strangers may write, and what is refused with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from images.digest import Digest, chain_ids
from images.documents import Index, Manifest, parse_config, parse_manifest
from images.errors import ImageError, InvalidDigest, MalformedImage, TooLarge, UnsupportedImage
from images.limits import Limits
from images.media import DOCKER_INDEX, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from images.platform import Platform

LIMITS = Limits()
DIGEST = "sha256:" + "a" * 64


def descriptor(media_type: str = OCI_LAYER, digest: object = DIGEST, size: object = 1, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG),
        "layers": [descriptor()],
        **changes,
    }


def parsed(document: object, media_type: str = OCI_MANIFEST, limits: Limits = LIMITS) -> Index | Manifest:
    return parse_manifest(json.dumps(document).encode(), media_type, limits, "app:1")


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:../../x", DIGEST.upper(), DIGEST + "0", "sha1:" + "a" * 40, DIGEST[7:], None, 5, []]
)
def test_digest_refused(text: object) -> None:
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


def test_digest_names_its_content() -> None:
    digest = Digest.of(b"hello")
    assert digest == "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    hasher = digest.hasher()
    hasher.update(b"hell")
    assert not digest.matches(hasher)
    hasher.update(b"o")
    assert digest.matches(hasher)


def test_chain_ids_depend_on_what_is_below() -> None:
    first, second = Digest.of(b"1"), Digest.of(b"2")
    assert chain_ids([]) == []
    assert chain_ids([first]) == [first]
    assert chain_ids([first, second]) == [first, Digest.of(f"{first} {second}".encode())]
    assert chain_ids([second, first])[1] != chain_ids([first, second])[1]


def test_manifest_with_and_without_its_own_type() -> None:
    image = parsed(manifest(layers=[descriptor(size=7), descriptor(OCI_LAYER + "+zstd")]))
    assert isinstance(image, Manifest)
    assert [layer.size for layer in image.layers] == [7, 1]
    document = manifest()
    del document["mediaType"]
    assert isinstance(parsed(document, ""), Manifest)
    assert isinstance(parsed(manifest(mediaType=DOCKER_MANIFEST), "text/plain"), Manifest)


@pytest.mark.parametrize(
    ("document", "error", "says"),
    [
        (manifest(config=None), MalformedImage, "config"),
        (manifest(config=descriptor(OCI_CONFIG, "sha256:../../x")), MalformedImage, "config"),
        (manifest(layers={}), MalformedImage, "layers"),
        (manifest(layers=[descriptor(), []]), MalformedImage, r"layers\[1\]"),
        (manifest(layers=[descriptor(size=-1)]), MalformedImage, r"layers\[0\]"),
        (manifest(layers=[descriptor(size=True)]), MalformedImage, r"layers\[0\]"),
        (manifest(layers=[descriptor(size="9" * 5000)]), MalformedImage, r"layers\[0\]"),
        (manifest(layers=[descriptor(size=1 << 60)]), TooLarge, "limit"),
        (manifest(layers=[descriptor()] * 501), TooLarge, "501 layers"),
        (manifest(config=descriptor(OCI_CONFIG, size=1 << 30)), TooLarge, "limit"),
        (manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json")), UnsupportedImage, "artifact"),
        (manifest(layers=[descriptor(OCI_LAYER + "+gzip+encrypted")]), UnsupportedImage, "encrypted"),
        ({"schemaVersion": 1, "fsLayers": []}, UnsupportedImage, "schema 1"),
        ({"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, UnsupportedImage, "schema 1"),
        ({"mediaType": "text/html"}, MalformedImage, "text/html"),
        (manifest(manifests=[descriptor(OCI_MANIFEST)]), MalformedImage, "an index and an image manifest in one"),
        ({"manifests": [descriptor(OCI_MANIFEST)], "layers": []}, MalformedImage, "an index and an image manifest"),
        ([], MalformedImage, "object"),
        ("x", MalformedImage, "object"),
    ],
)
def test_manifest_refused(document: object, error: type[ImageError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        parsed(document, "")
    assert "app:1" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"{}" * 2])
def test_manifest_that_is_no_json(body: bytes) -> None:
    with pytest.raises(MalformedImage):
        parse_manifest(body, OCI_MANIFEST, LIMITS, "app:1")


def test_manifest_over_its_limit_is_not_parsed() -> None:
    with pytest.raises(TooLarge):
        parse_manifest(b"[" * 101, OCI_MANIFEST, Limits(manifest=100), "app:1")


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_INDEX])
def test_index_picks_the_platform(media_type: str) -> None:
    def entry(platform: object, size: int) -> dict[str, Any]:
        return descriptor(OCI_MANIFEST, size=size, platform=platform)

    arm = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    amd = {"os": "linux", "architecture": "amd64"}
    entries = [
        entry({"os": "unknown", "architecture": "unknown"}, 1),
        entry({"os": "windows", "architecture": "amd64"}, 2),
        entry(arm, 3),
        entry({**amd, "variant": "v3"}, 4),
        entry(amd, 5),
        entry(amd, 6),
    ]
    index = parsed({"mediaType": media_type, "manifests": entries}, "")
    assert isinstance(index, Index)
    chosen = [index.choose(Platform("linux", *name)) for name in (("amd64",), ("arm64", "v8"), ("s390x",))]
    assert [found.size if found else None for found in chosen] == [5, 3, None]


def test_entries_that_do_not_say_what_they_are_for_come_last() -> None:
    """`platform` is OPTIONAL (image-index.md): an index below has none, nor has an artifact beside the image."""
    amd = {"os": "linux", "architecture": "amd64"}
    entries = [
        descriptor("application/vnd.example", size=1),
        descriptor(OCI_INDEX, size=2),
        descriptor(OCI_MANIFEST, size=3),
        descriptor(OCI_MANIFEST, size=4, platform=amd),
    ]
    for platform, size in (("amd64", 4), ("s390x", 2)):
        index = parsed({"mediaType": OCI_INDEX, "manifests": entries}, "")
        assert isinstance(index, Index)
        chosen = index.choose(Platform("linux", platform))
        assert chosen is not None and chosen.size == size


def config(**changes: Any) -> dict[str, Any]:
    return {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}, **changes}


def test_config_without_nulls() -> None:
    document = config(created="2024-01-01T00:00:00Z", config={"User": "1:2", "Env": ["A=b"], "Cmd": None, "X": 1})
    found = parse_config(json.dumps(document).encode(), LIMITS, "config")
    assert found.config == {"User": "1:2", "Env": ["A=b"], "X": 1}
    assert (found.platform, found.diff_ids, found.created) == (
        Platform("linux", "amd64"),
        (DIGEST,),
        "2024-01-01T00:00:00Z",
    )
    assert parse_config(json.dumps(config(config=None)).encode(), LIMITS, "config").config == {}


@pytest.mark.parametrize(
    "document",
    [
        {},
        config(rootfs={"diff_ids": ["sha256:../../x"]}),
        config(rootfs={"diff_ids": "x"}),
        config(config=[]),
        config(config={"User": 0}),
        config(config={"Env": "A=b"}),
        config(config={"Env": [1]}),
        config(config={"Cmd": {"a": 1}}),
        config(config={"Volumes": ["/data"]}),
        config(config={"Labels": {"a": 1}}),
        config(config={"WorkingDir": ["/"]}),
    ],
)
def test_config_refused(document: object) -> None:
    with pytest.raises(MalformedImage, match="config"):
        parse_config(json.dumps(document).encode(), LIMITS, "the config of app:1")


def test_platform_of_this_host_and_its_text() -> None:
    assert Platform.host().os == "linux"
    assert Platform.parse(str(Platform.host())) == Platform.host()
    assert Platform("linux", "arm", "v7").rank(Platform("linux", "arm", "v6")) == 2
    assert Platform("linux", "arm", "v6").rank(Platform("linux", "arm", "v7")) is None
    with pytest.raises(ValueError, match="os/architecture"):
        Platform.parse("linux")
