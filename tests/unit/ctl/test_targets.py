"""Which pod or container a word means."""

from __future__ import annotations

import pytest

from cri.proto import api_pb2 as api
from nodeagent.ctl.complaint import Complaint
from nodeagent.ctl.targets import find, find_container, find_pod
from nodeagent.ctl.world import Pod, World, put_together


def sandbox(id: str, name: str, namespace: str = "default", created: int = 1, uid: str = "") -> api.PodSandbox:
    metadata = api.PodSandboxMetadata(name=name, namespace=namespace, uid=uid or f"uid-{name}")
    return api.PodSandbox(id=id, metadata=metadata, created_at=created)


def container(id: str, pod: str, name: str = "main", created: int = 1, running: bool = True) -> api.Container:
    state = api.CONTAINER_RUNNING if running else api.CONTAINER_EXITED
    metadata = api.ContainerMetadata(name=name)
    return api.Container(id=id, pod_sandbox_id=pod, metadata=metadata, state=state, created_at=created)


SANDBOXES = [sandbox("aa11", "web"), sandbox("aa22", "db"), sandbox("bb33", "web", "other"), sandbox("cc44", "solo")]
CONTAINERS = [
    container("d1", "aa11", "init", 1, running=False),
    container("d2", "aa11", "app", 3, running=False),
    container("d3", "aa11", "app", 5),
    container("d4", "aa11", "log", 4),
    container("e1", "aa22", "pg"),
    container("f1", "bb33", "app"),
]
WORLD = World(put_together(SANDBOXES, CONTAINERS, []))


def found(word: str) -> str:
    what = find(WORLD, word)
    return what.full_name if isinstance(what, Pod) else what.id


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("db", "default/db"),
        ("other/web", "other/web"),
        ("bb", "other/web"),
        ("e1", "e1"),
        ("pg", "e1"),
        ("uid-solo", "default/solo"),
    ],
)
def test_words_that_mean_one_thing(word: str, what: str) -> None:
    assert found(word) == what


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("web", "'web' is ambiguous: pod default/web (aa11), pod other/web (bb33)"),
        ("aa", "'aa' is ambiguous: pod default/db (aa22), pod default/web (aa11)"),
        ("app", "'app' is ambiguous: container d3 (app of default/web), container f1 (app of other/web)"),
        ("wep", "no pod or container 'wep': there are default/db, default/solo, default/web, other/web"),
        ("so", "no pod or container 'so': did you mean default/solo"),
        ("", "no pod or container ''"),
    ],
)
def test_other_words_are_answered_with_the_candidates(word: str, complaint: str) -> None:
    with pytest.raises(Complaint) as refused:
        find(WORLD, word)
    assert str(refused.value).startswith(complaint)


def test_a_node_without_pods() -> None:
    with pytest.raises(Complaint, match="this node has no pods"):
        find(World([]), "web")


def test_a_whole_name_wins_over_the_beginning_of_an_id() -> None:
    world = World(put_together([sandbox("abc", "x"), sandbox("123", "abc")], [], []))
    assert find_pod(world, "abc").name == "abc"


def test_the_container_of_a_pod_is_the_newest_of_its_name() -> None:
    assert find_container(WORLD, "default/web", "app")[0].id == "d3"
    assert find_container(WORLD, "default/web", "app", previous=True)[0].id == "d2"
    with pytest.raises(Complaint, match="has no container 'nobody', only init, app, log"):
        find_container(WORLD, "default/web", "nobody")
    with pytest.raises(Complaint, match="pod default/solo has no containers yet"):
        find_container(WORLD, "solo")
    with pytest.raises(Complaint, match="is called 'pg', not 'app'"):
        find_container(WORLD, "e1", "app")


def test_a_container_that_nobody_named_is_chosen_and_said() -> None:
    """One that runs, unless the manifest tells which is the first."""
    chosen, remark = find_container(WORLD, "default/web")
    assert (chosen.metadata.name, remark) == ("app", "container app of init, app, log; choose with -c")
    document = {
        "metadata": {"name": "web", "namespace": "default", "uid": "uid-web"},
        "spec": {"containers": [{"name": "log"}, {"name": "app"}], "initContainers": [{"name": "init"}]},
    }
    world = World(put_together(SANDBOXES, CONTAINERS, [document]))
    assert find_container(world, "default/web")[0].metadata.name == "log"
    assert find_container(world, "db") == (CONTAINERS[4], "")


def test_of_two_lives_of_a_pod_the_newer_one_is_meant() -> None:
    world = World(
        put_together([sandbox("a1", "web", created=1, uid="u1"), sandbox("a2", "web", created=2, uid="u2")], [], [])
    )
    assert find_pod(world, "web").uid == "u2"
