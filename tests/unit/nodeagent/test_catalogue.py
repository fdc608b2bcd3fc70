"""What is wanted when files come, break, mend, go and contradict each other."""

from __future__ import annotations

from nodeagent.manifests.catalogue import Catalogue
from nodeagent.pods.pod import Key
from tests.support.pods import manifest, text

WEB = Key("default", "web")


def catalogue() -> Catalogue:
    return Catalogue("node-1", "/manifests")


def test_a_broken_file_is_reported_with_line_field_and_reason_and_disturbs_nothing() -> None:
    files = catalogue()
    files.put("good.yaml", text(manifest("good")))
    broken = b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: bad\nspec:\n  containers:\n  - name: a\n"
    assert files.put("bad.yaml", broken) is False
    wanted = files.wanted()
    assert list(wanted.pods) == [Key("default", "good")]
    assert [str(problem) for problem in wanted.problems] == ["bad.yaml:7: spec.containers[0].image: Required value"]


def test_the_last_good_version_goes_on_until_the_file_is_mended_or_gone() -> None:
    files = catalogue()
    files.put("a.yaml", text(manifest()))
    first = files.wanted().pods[WEB]
    for half in (b"", b"{", b"apiVersion: v1\nkind: Pod\n"):
        assert files.put("a.yaml", half) is False
        wanted = files.wanted()
        assert wanted.pods[WEB].uid == first.uid
        assert wanted.problems[0].fatal
    assert files.put("a.yaml", text(manifest(hostname="new")))
    wanted = files.wanted()
    assert wanted.pods[WEB].uid != first.uid
    assert wanted.problems == []
    files.drop("a.yaml")
    assert files.wanted().pods == {}


def test_a_pod_belongs_to_the_file_that_had_it_first() -> None:
    files = catalogue()
    files.put("b.yaml", text(manifest()))
    owner = files.wanted().pods[WEB].source
    files.put("a.yaml", text(manifest(hostname="other")))
    wanted = files.wanted()
    assert wanted.pods[WEB].source == owner
    assert [str(problem) for problem in wanted.problems] == ["a.yaml: pod default/web is already defined by b.yaml"]
    files.drop("b.yaml")
    wanted = files.wanted()
    assert wanted.pods[WEB].source == "/manifests/a.yaml"
    assert wanted.problems == []


def test_one_file_may_not_define_a_pod_twice() -> None:
    files = catalogue()
    assert not files.put("a.yaml", text(manifest()) + b"\n---\n" + text(manifest(hostname="x")))
    assert str(files.wanted().problems[0]) == "a.yaml: defines pod default/web twice"


def test_two_pods_may_not_have_one_uid() -> None:
    files = catalogue()
    for name in ("a", "b"):
        document = manifest(name)
        document["metadata"]["uid"] = "same"
        files.put(f"{name}.yaml", text(document))
    wanted = files.wanted()
    assert list(wanted.pods) == [Key("default", "a")]
    assert [str(problem) for problem in wanted.problems] == [
        "b.yaml: metadata.uid: pod default/b has the uid of pod default/a"
    ]
    files.drop("a.yaml")
    assert list(files.wanted().pods) == [Key("default", "b")]


def test_claims_and_volumes_are_handed_on_and_other_kinds_refused() -> None:
    files = catalogue()
    assert files.put("pvc.yaml", b"kind: PersistentVolumeClaim\nmetadata: {name: data}\n")
    assert [document["kind"] for document in files.wanted().storage] == ["PersistentVolumeClaim"]
    assert not files.put("deployment.yaml", b"kind: Deployment\n")
    assert 'deployment.yaml:1: kind: Unsupported value: "Deployment"' in str(files.wanted().problems[0])
    assert str(files.wanted().problems[0]).endswith(
        "; write its spec.template as a Pod, for no controller makes one of it here"
    )
    for number, (kind, words) in enumerate((("Secret", "hostPath"), ("Service", "hostPort"), ("[]", '"List"'))):
        assert not files.put(f"{number}.yaml", f"kind: {kind}\n".encode())
        assert words in str({each.file: each for each in files.wanted().problems}[f"{number}.yaml"])


def test_warnings_do_not_break_a_file() -> None:
    files = catalogue()
    assert files.put("a.yaml", text(manifest(color="blue")))
    wanted = files.wanted()
    assert list(wanted.pods) == [WEB]
    assert [(str(problem), problem.fatal) for problem in wanted.problems] == [
        ("a.yaml: spec.color: unknown field", False)
    ]
