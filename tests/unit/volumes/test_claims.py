"""Claims get the volume they should, keep it, and say why when they get none."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.volumes.claims import ClaimBook, ClaimIndex
from nodeagent.volumes.errors import ClaimError
from runtime.linux.records import Records
from tests.support.databases import locked_by_another
from tests.support.volume_documents import claim, volume


def bound(index: ClaimIndex) -> dict[str, str]:
    return {binding["claim"]: name for name, binding in index.bindings.items()}


def refusal(index: ClaimIndex, name: str = "data") -> str:
    with pytest.raises(ClaimError) as caught:
        index.resolve("default", name)
    return str(caught.value)


def test_the_smallest_volume_that_fits() -> None:
    index = ClaimIndex([volume("big", "10Gi"), volume("small", "500Mi"), volume("right", "2Gi"), claim(size="1Gi")])
    assert index.resolve("default", "data").name == "right"


def test_the_reserved_volume_and_the_named_volume_come_first() -> None:
    documents = [
        volume("a"),
        volume("b", claimRef={"name": "reserved", "namespace": "default"}),
        volume("c"),
        claim("anything"),
        claim("named", volumeName="a"),
        claim("reserved"),
    ]
    assert bound(ClaimIndex(documents)) == {"default/anything": "c", "default/named": "a", "default/reserved": "b"}


@pytest.mark.parametrize(
    ("offer", "wish", "words"),
    [
        (volume(size="1Gi"), claim(size="2Gi"), "has 1073741824 bytes, wanted are 2147483648"),
        (volume(storageClassName="fast"), claim(), "storageClassName is 'fast', the claim's ''"),
        (volume(), claim(accessModes=["ReadWriteMany"]), "lacks access mode ReadWriteMany"),
        (volume(), claim(selector={"matchLabels": {"disk": "other"}}), "labels do not match"),
        (volume(), claim(volumeName="pv-2"), "the claim names pv-2"),
        (volume(claimRef={"name": "other"}), claim(), "reserved for claim default/other"),
    ],
)
def test_a_volume_that_does_not_fit_says_why(offer, wish, words) -> None:  # type: ignore[no-untyped-def]
    assert f"claim default/data: no PersistentVolume fits (pv-1: {words}" in refusal(ClaimIndex([offer, wish]))


def test_no_volume_and_no_claim() -> None:
    assert "there is none" in refusal(ClaimIndex([claim()]))
    assert "no such PersistentVolumeClaim" in refusal(ClaimIndex([volume()]))


def test_a_bound_volume_is_not_given_twice() -> None:
    index = ClaimIndex([volume(), claim("data"), claim("later")])
    assert index.resolve("default", "data").name == "pv-1"
    assert "bound to claim default/data" in refusal(index, "later")


def test_another_namespace_is_another_claim() -> None:
    other = claim("data")
    other["metadata"]["namespace"] = "prod"
    index = ClaimIndex([volume("pv-1"), volume("pv-2"), claim("data"), other])
    assert index.resolve("default", "data").name != index.resolve("prod", "data").name


@pytest.mark.parametrize(
    ("document", "label", "words"),
    [
        (volume(capacity={"storage": "lots"}), "PersistentVolume pv-1", "spec.capacity.storage: must be a quantity"),
        (volume(csi="x"), "PersistentVolume pv-1", "spec.csi: must be an object, not str"),
        (volume(accessModes=["Everyone"]), "PersistentVolume pv-1", "spec.accessModes"),
        (volume(volumeMode="Block"), "PersistentVolume pv-1", "spec.volumeMode: only Filesystem"),
        (volume(csi=None, nfs={"server": "x"}), "PersistentVolume pv-1", "spec.nfs: is not supported"),
        (volume(csi=None), "PersistentVolume pv-1", "csi or hostPath"),
        (claim(selector={"matchExpressions": [{}]}), "PersistentVolumeClaim default/data", "use matchLabels"),
        (claim(resources={"requests": {"storage": -1}}), "PersistentVolumeClaim default/data", "negative"),
        (claim(name="../../etc"), "PersistentVolumeClaim default/../../etc", "metadata.name"),
        ({"kind": "PersistentVolume", "metadata": [1]}, "PersistentVolume None", "metadata: must be an object"),
        ({"kind": "PersistentVolumeClaim"}, "PersistentVolumeClaim default/None", "metadata.name: required"),
    ],
)
def test_a_broken_document_is_reported_and_disturbs_no_other(document, label, words) -> None:  # type: ignore[no-untyped-def]
    index = ClaimIndex([document, volume("good"), claim("fine", volumeName="good")])
    assert words in index.problems[label]
    assert index.resolve("default", "fine").name == "good"


def test_a_broken_claim_says_so_to_its_pod() -> None:
    assert "spec.accessModes" in refusal(ClaimIndex([volume(), claim(accessModes=[])]))


def test_a_name_defined_twice_counts_once() -> None:
    index = ClaimIndex([volume("pv-1", "1Gi"), volume("pv-1", "9Gi"), claim()])
    assert index.resolve("default", "data").capacity == 1 << 30
    assert "defined twice" in index.problems["PersistentVolume pv-1"]


class TestKeptBindings:
    @pytest.fixture
    def book(self, tmp_path: Path) -> ClaimBook:
        return ClaimBook(Records(tmp_path / "records.db"))

    def test_a_new_claim_takes_nothing_away(self, book: ClaimBook) -> None:
        book.index([volume(), claim("data")])
        index = book.index([volume(), claim("data"), claim("aaa-first-by-name")])
        assert index.resolve("default", "data").name == "pv-1"
        assert "bound to claim default/data" in refusal(index, "aaa-first-by-name")

    def test_a_claim_that_is_gone_keeps_its_data_from_others(self, book: ClaimBook) -> None:
        book.index([volume(), claim("data")])
        assert "bound to claim default/data" in refusal(book.index([volume(), claim("other")]), "other")
        assert book.index([volume(), claim("data"), claim("other")]).resolve("default", "data").name == "pv-1"

    def test_a_volume_whose_file_is_away_for_a_moment(self, book: ClaimBook) -> None:
        book.index([volume(), claim("data")])
        index = book.index([volume("pv-2"), claim("data")])
        assert "is bound to PersistentVolume pv-1, which is not in the manifest directory" in refusal(index)
        assert book.index([volume(), volume("pv-2"), claim("data")]).resolve("default", "data").name == "pv-1"

    def test_a_volume_that_became_another_one_is_free(self, book: ClaimBook) -> None:
        book.index([volume(), claim("data")])
        changed = volume(csi={"driver": "d.example", "volumeHandle": "other-disk"})
        assert book.index([changed, claim("other")]).resolve("default", "other").name == "pv-1"

    def test_a_claim_that_grew_out_of_its_volume(self, book: ClaimBook) -> None:
        book.index([volume(), claim("data")])
        words = refusal(book.index([volume(), claim("data", size="5Gi")]))
        assert "is bound to PersistentVolume pv-1, but: has 1073741824 bytes" in words

    def test_a_binding_that_cannot_be_written_is_none_yet(self, book: ClaimBook, tmp_path: Path) -> None:
        book.index([volume(), claim("data")])
        with locked_by_another(tmp_path / "records.db"):
            index = book.index([volume(), volume("pv-2"), claim("data"), claim("later")])
            assert index.resolve("default", "data").name == "pv-1"
            words = "cannot be given PersistentVolume pv-2 yet, for that is not written down"
            assert words in refusal(index, "later")
            assert words in index.problems["PersistentVolumeClaim default/later"]
            assert "is locked by another process" in index.withheld["default/later"]
        index = book.index([volume(), volume("pv-2"), claim("data"), claim("later")])
        assert index.resolve("default", "later").name == "pv-2"
        assert not index.withheld
