"""The catalogue: images by id and name, tags that move, records that survive a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.catalog import KIND, Catalog
from images.digest import Digest
from images.image import Image
from images.reference import Reference
from runtime.linux.records import Records

A, B = (f"sha256:{letter * 64}" for letter in "ab")
MANIFEST = Digest.of(b"manifest")


def image(id: str, *names: str) -> Image:
    made = Image(id, (), (), 10, {"User": "7"}, (Digest.of(b"layer"),), (Digest.of(b"blob"),), "2024", "linux/amd64")
    for name in names:
        made = made.named(Reference.parse(name), MANIFEST)
    return made


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "node.db")


def test_found_by_every_name(records: Records) -> None:
    catalog = Catalog(records, [])
    catalog.add(image(A, "busybox:1", "host.example/app"))
    catalog.add(image(B, "other"))
    for name in (
        A,
        A[7:],
        "sha256:aaaaa",
        "aaaaa",
        "busybox:1",
        "docker.io/library/busybox:1",
        "host.example/app:latest",
        f"busybox@{MANIFEST}",
    ):
        found = catalog.find(name)
        assert found is not None, name
        assert found.id == A
    for name in ("busybox", "aaaa", "sha256:" + "c" * 64, "c" * 64, "", "../x", "sha256:", "sha256"):
        assert catalog.find(name) is None, name


def test_a_short_id_must_fit_one_image_only(records: Records) -> None:
    catalog = Catalog(records, [])
    catalog.add(image("sha256:abcdef" + "0" * 58))
    assert catalog.find("abcde") is not None
    catalog.add(image("sha256:abcde0" + "0" * 58))
    assert catalog.find("abcde") is None
    assert catalog.find("abcdef") is not None


def test_a_name_that_looks_like_an_id_is_a_name_first(records: Records) -> None:
    catalog = Catalog(records, [])
    catalog.add(image("sha256:decade" + "0" * 58))
    catalog.add(image(B, "decade"))
    found = catalog.find("decade")
    assert found is not None
    assert found.id == B


def test_a_tag_moves_and_the_digest_stays(records: Records) -> None:
    catalog = Catalog(records, [])
    catalog.add(image(A, "app:1", "app:2"))
    catalog.add(image(B, "app:1"))
    old, new = catalog.find(A), catalog.find(B)
    assert old is not None
    assert new is not None
    assert old.repo_tags == ("docker.io/library/app:2",)
    assert old.repo_digests == (f"docker.io/library/app@{MANIFEST}",)
    assert new.repo_tags == ("docker.io/library/app:1",)


def test_names_of_one_image_add_up_and_go_together(records: Records) -> None:
    catalog = Catalog(records, [])
    catalog.add(image(A, "app:1"))
    both = catalog.add(image(A, "app:2"))
    assert both.repo_tags == ("docker.io/library/app:1", "docker.io/library/app:2")
    catalog.remove(A)
    assert catalog.all() == []
    assert records.all(KIND) == {}


def test_records_outlive_the_catalogue(records: Records) -> None:
    before = Catalog(records, ["pinned:1"])
    before.add(image(A, "pinned:1"))
    before.add(image(B, "app"))
    records.put(KIND, "sha256:broken", {"size": "many"})
    records.put(KIND, "sha256:hostile", {**image(B).to_json(), "layers": ["sha256:../../x"]})
    after = Catalog(records, ["pinned:1"])
    after.load()
    assert after.all() == before.all()
    assert [(found.id, found.pinned) for found in after.all()] == [(A, True), (B, False)]
    assert sorted(records.all(KIND)) == [A, B]
    assert after.all()[0].user == "7"


def test_a_reference_by_digest_gives_no_tag() -> None:
    named = image(A).named(Reference.parse(f"app:1@{MANIFEST}"), MANIFEST)
    assert (named.repo_tags, named.repo_digests) == ((), (f"docker.io/library/app@{MANIFEST}",))
