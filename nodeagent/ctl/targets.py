"""Which pod or container a word means: a name, namespace/name, or the beginning of an id.

A whole name wins over the beginning of an id. A word that means several things, or nothing, is answered with the
candidates.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from cri.proto import api_pb2 as api
from nodeagent.ctl.complaint import Complaint
from nodeagent.ctl.world import Pod, World

SHOWN = 8
#: Characters of an id in tables, enough to be the only one.
SHORT = 13


def short(id: str) -> str:
    return id.removeprefix("sha256:")[:SHORT]


def find(world: World, word: str) -> Pod | api.Container:
    """A pod or a container. Raises Complaint."""
    pods = _named_pods(world, word)
    containers: list[api.Container] = []
    if not pods:
        pods = [pod for pod in world.pods if _has_id(pod, word)]
        containers = [each for each in world.containers() if word and each.id.startswith(word)]
    if not pods and not containers:
        containers = _newest(each for each in world.containers() if each.metadata.name == word)
    found: list[Pod | api.Container] = [*pods, *containers]
    if len(found) == 1:
        return found[0]
    if found:
        raise Complaint(f"{word!r} is ambiguous: {_listed(_described(world, each) for each in found)}")
    raise Complaint(f"no pod or container {word!r}: {_suggestions(world, word)}")


def find_pod(world: World, word: str) -> Pod:
    """A pod. Raises Complaint."""
    found = find(world, word)
    if not isinstance(found, Pod):
        return world.pod_of(found)
    return found


def find_container(world: World, word: str, name: str = "", *, previous: bool = False) -> tuple[api.Container, str]:
    """A container, by itself or as the one called `name` of a pod; and a remark on the choice, if there was one.

    The newest attempt, or with `previous` the one before it. Raises Complaint.
    """
    found = find(world, word)
    if isinstance(found, Pod):
        chosen, remark = _of_pod(found, name)
    elif name and found.metadata.name != name:
        raise Complaint(f"container {short(found.id)} is called {found.metadata.name!r}, not {name!r}")
    else:
        chosen, remark = found, ""
    return (_attempt_before(world, chosen), remark) if previous else (chosen, remark)


def _of_pod(pod: Pod, name: str) -> tuple[api.Container, str]:
    containers = pod.latest()
    if not containers:
        raise Complaint(f"pod {pod.full_name} has no containers yet; see: nodectl pods")
    if name:
        if name not in containers:
            raise Complaint(f"pod {pod.full_name} has no container {name!r}, only {', '.join(containers)}")
        return containers[name], ""
    running = [each for each in containers.values() if each.state == api.CONTAINER_RUNNING]
    # Without the manifest's order, init containers come first: whoever runs is more likely meant.
    chosen = next(iter(containers.values())) if pod.document or not running else running[0]
    others = len(containers) > 1
    remark = f"container {chosen.metadata.name} of {', '.join(containers)}; choose with -c" if others else ""
    return chosen, remark


def _attempt_before(world: World, container: api.Container) -> api.Container:
    pod = world.pod_of(container)
    older = [
        each
        for each in pod.containers
        if each.metadata.name == container.metadata.name and each.created_at < container.created_at
    ]
    if not older:
        raise Complaint(f"container {container.metadata.name} of pod {pod.full_name} has no earlier attempt")
    return older[0]


def _named_pods(world: World, word: str) -> list[Pod]:
    """Of several lives of one pod the newest: the agent's, or else the runtime's last."""
    named: dict[str, Pod] = {}
    for pod in sorted(world.pods, key=lambda pod: (pod.document is None, -pod.created_at)):
        if word in (pod.name, pod.full_name):
            named.setdefault(pod.full_name, pod)
    return list(named.values())


def _has_id(pod: Pod, word: str) -> bool:
    return bool(word) and (pod.uid.startswith(word) or any(each.id.startswith(word) for each in pod.sandboxes))


def _newest(containers: Iterable[api.Container]) -> list[api.Container]:
    """One for each pod: earlier attempts have the same name."""
    newest: dict[str, api.Container] = {}
    for container in containers:
        newest.setdefault(container.pod_sandbox_id, container)
    return list(newest.values())


def _described(world: World, found: Pod | api.Container) -> str:
    if isinstance(found, Pod):
        return f"pod {found.full_name}" + (f" ({short(found.sandbox.id)})" if found.sandbox else "")
    return f"container {short(found.id)} ({found.metadata.name} of {world.pod_of(found).full_name})"


def _suggestions(world: World, word: str) -> str:
    names = list(dict.fromkeys(pod.full_name for pod in world.pods))
    if not names:
        return "this node has no pods"
    near = [name for name in names if word.rpartition("/")[2] in name]
    near += difflib.get_close_matches(word, names, SHOWN) if not near else []
    return ("did you mean " if near else "there are ") + _listed(near or names)


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more
