"""A pod's defaults, identity and class."""

from __future__ import annotations

from typing import Any

import pytest

from nodeagent.pods.pod import Key, Pod
from nodeagent.pods.qos import cgroup_parent, oom_score_adj, qos_class
from tests.support.pods import container, manifest, pod

GIB = 1 << 30


def test_defaults_are_those_of_the_api() -> None:
    made = pod()
    assert made.key == Key("default", "web")
    assert made.spec["restartPolicy"] == "Always"
    assert made.grace == 30
    main = made.container("main")
    assert main["terminationMessagePath"] == "/dev/termination-log"
    assert main["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("localhost:5000/busybox", "Always"),
        ("busybox:1.37", "IfNotPresent"),
        ("busybox@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_a_moving_image_is_pulled_always(image: str, policy: str) -> None:
    assert pod("web", container(image=image)).containers[0]["imagePullPolicy"] == policy


def test_the_identity_follows_content_file_and_node_and_nothing_else() -> None:
    document = manifest()
    first = Pod.of(document, "/m/a.yaml", "n")
    again = Pod.of(dict(reversed(document.items())), "/m/a.yaml", "n")
    assert (first.uid, first.digest) == (again.uid, again.digest)
    others = {
        Pod.of(document, "/m/b.yaml", "n").uid,
        Pod.of(document, "/m/a.yaml", "m").uid,
        Pod.of(manifest(hostname="x"), "/m/a.yaml", "n").uid,
    }
    assert len(others | {first.uid}) == 4


def test_a_given_uid_is_kept_and_the_digest_tells_versions_apart() -> None:
    document = manifest()
    document["metadata"]["uid"] = "fixed-1"
    first, second = (Pod.of(each, "f", "n") for each in (document, document | {"spec": manifest(hostname="x")["spec"]}))
    assert first.uid == second.uid == "fixed-1"
    assert first.digest != second.digest


def test_the_document_handed_in_is_not_changed() -> None:
    document = manifest()
    Pod.of(document, "f", "n")
    assert document == manifest()


def resources(**amounts: Any) -> dict[str, Any]:
    return container(resources=amounts)


@pytest.mark.parametrize(
    ("main", "qos", "parent"),
    [
        (container(), "BestEffort", "/kubepods/besteffort/pod"),
        (resources(requests={"cpu": "0"}), "BestEffort", "/kubepods/besteffort/pod"),
        (resources(requests={"cpu": "1"}), "Burstable", "/kubepods/burstable/pod"),
        (resources(limits={"cpu": "1"}), "Burstable", "/kubepods/burstable/pod"),
        (resources(limits={"cpu": "1", "memory": "1Gi"}), "Guaranteed", "/kubepods/pod"),
        (
            resources(limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "1000m", "memory": GIB}),
            "Guaranteed",
            "/kubepods/pod",
        ),
        (
            resources(limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "0.5"}),
            "Burstable",
            "/kubepods/burstable/pod",
        ),
    ],
)
def test_quality_of_service(main: dict[str, Any], qos: str, parent: str) -> None:
    made = pod("web", main)
    assert qos_class(made) == qos
    assert cgroup_parent(made) == parent + made.uid


def test_one_container_without_limits_makes_the_pod_burstable() -> None:
    limited = container("a", resources={"limits": {"cpu": "1", "memory": "1Gi"}})
    assert qos_class(pod("web", limited, container("b"))) == "Burstable"


def test_the_systemd_name_of_the_parent() -> None:
    made = pod()
    assert cgroup_parent(made, root="/a/b") == f"/a/b/kubepods/besteffort/pod{made.uid}"
    assert cgroup_parent(made, systemd=True) == f"kubepods-besteffort-pod{made.uid.replace('-', '_')}.slice"


@pytest.mark.parametrize(("request_", "score"), [("1Gi", 900), ("10Gi", 3), ("1", 999), (None, 999)])
def test_a_larger_request_is_killed_later(request_: str | None, score: int) -> None:
    amounts = {"memory": request_} if request_ else {"cpu": "1"}
    made = pod("web", container(resources={"requests": amounts}))
    assert oom_score_adj(made, made.containers[0], 10 * GIB) == score
