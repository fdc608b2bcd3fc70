"""Which container or sandbox a person means: a pod's name, namespace/name, or the first digits of an id."""

from __future__ import annotations

from cri.client import CriClientSync
from cri.proto import api_pb2
from nodeagent.ctl.connect import QUICK
from nodeagent.ctl.main import Fault
from nodeagent.pods.pod import Key

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"


def containers(cri: CriClientSync) -> list[api_pb2.Container]:
    """All of them, newest first."""
    found = list(cri.ListContainers(timeout=QUICK).containers)
    return sorted(found, key=lambda each: each.created_at, reverse=True)


def sandboxes(cri: CriClientSync) -> list[api_pb2.PodSandbox]:
    """All of them, newest first."""
    found = list(cri.ListPodSandbox(timeout=QUICK).items)
    return sorted(found, key=lambda each: each.created_at, reverse=True)


def key_of(sandbox: api_pb2.PodSandbox) -> Key:
    return Key(sandbox.metadata.namespace, sandbox.metadata.name)


def find_sandbox(cri: CriClientSync, text: str) -> api_pb2.PodSandbox:
    """The newest one of a pod; raises Fault where nothing, or more than one pod, is meant."""
    every = sandboxes(cri)
    named = [each for each in every if text in (each.metadata.name, str(key_of(each)))] or [
        each for each in every if each.id.startswith(text)
    ]
    if not named:
        raise Fault(f"no pod or container {text!r} on this node; see: nodectl pods, nodectl ps -a")
    keys = {str(key_of(each)) for each in named}
    if len(keys) > 1:
        raise Fault(f"{text!r} may mean {' or '.join(sorted(keys))}: say which")
    return named[0]


def find_container(cri: CriClientSync, text: str, name: str = "", *, running: bool = False) -> api_pb2.Container:
    """A container by its id, or the one of that name in a pod (the only one, if it has one). Raises Fault."""
    every = containers(cri)
    by_id = [each for each in every if len(text) >= 3 and each.id.startswith(text)]
    if by_id and not name:
        if len(by_id) > 1:
            raise Fault(f"{len(by_id)} containers have an id that begins with {text}: give more of it")
        return _checked(by_id[0], text, running)
    sandbox = find_sandbox(cri, text)
    pod = [each for each in every if each.pod_sandbox_id == sandbox.id]
    names = sorted({each.metadata.name for each in pod})
    if not names:
        raise Fault(f"pod {key_of(sandbox)} has no container yet; see: nodectl pods")
    if not name and len(names) > 1:
        raise Fault(f"pod {key_of(sandbox)} has the containers {', '.join(names)}: choose one with -c")
    wanted = [each for each in pod if each.metadata.name == (name or names[0])]
    if not wanted:
        raise Fault(f"pod {key_of(sandbox)} has no container {name!r}, only {', '.join(names)}")
    return _checked(wanted[0], text, running)


def _checked(container: api_pb2.Container, text: str, running: bool) -> api_pb2.Container:
    if running and container.state != api_pb2.CONTAINER_RUNNING:
        state = state_name(container.state)
        raise Fault(f"container {container.metadata.name} of {text} is {state}, not running; see: nodectl logs {text}")
    return container


def state_name(state: int) -> str:
    return api_pb2.ContainerState.Name(state).removeprefix("CONTAINER_").capitalize()


def complete_pods(prefix: str, parsed_args: object, **_: object) -> list[str]:
    """For argcomplete: names of pods that run, or nothing when no runtime answers at once."""
    from argparse import Namespace

    from cri.client import CriError
    from nodeagent.ctl.connect import connect

    assert isinstance(parsed_args, Namespace)
    try:
        with connect(parsed_args) as cri:
            found = cri.ListPodSandbox(timeout=1.0).items
    except CriError:
        return []
    return sorted({each.metadata.name for each in found})
