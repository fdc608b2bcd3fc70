"""nodectl stop: pods or containers. A pod of a manifest comes back: the agent sees to that, and so we say so."""

from __future__ import annotations

import argparse

from cri.proto import api_pb2 as api
from nodeagent.ctl.completers import completed, pods
from nodeagent.ctl.session import Session
from nodeagent.ctl.targets import find, short
from nodeagent.ctl.world import Pod, look

GRACE = 10
#: Seconds that a call may take beyond the grace that it gives.
MARGIN = 20.0
SOURCE = "kubernetes.io/config.source"


def arguments(parser: argparse.ArgumentParser) -> None:
    completed(parser.add_argument("target", nargs="+", metavar="POD|CONTAINER", help="names or ids"), pods)
    parser.add_argument(
        "-g", "--grace", type=int, default=GRACE, metavar="SECONDS", help="before SIGKILL (default: %(default)s)"
    )


async def run(session: Session, given: argparse.Namespace) -> int:
    world = await look(session)
    for found in [find(world, word) for word in given.target]:
        if isinstance(found, Pod):
            await stop_pod(session, found, given.grace)
            session.output.line(f"stopped pod {found.full_name}")
        else:
            await stop_container(session, found, given.grace)
            session.output.line(f"stopped container {short(found.id)} ({found.metadata.name})")
        warn_of_return(session, found if isinstance(found, Pod) else world.pod_of(found))
    return 0


async def stop_pod(session: Session, pod: Pod, grace: int) -> None:
    """Its containers with their grace, which StopPodSandbox alone would not give them; then its sandboxes."""
    for container in pod.containers:
        if container.state == api.CONTAINER_RUNNING:
            await stop_container(session, container, grace)
    for sandbox in pod.sandboxes:
        await session.cri.StopPodSandbox(pod_sandbox_id=sandbox.id, timeout=grace + MARGIN)


async def stop_container(session: Session, container: api.Container, grace: int) -> None:
    request = api.StopContainerRequest(container_id=container.id, timeout=grace)
    await session.cri.StopContainer(request, timeout=grace + MARGIN)


def warn_of_return(session: Session, pod: Pod) -> None:
    if pod.document is not None:
        source = pod.sandbox.annotations.get(SOURCE, "") if pod.sandbox else ""
        manifest = source or "its manifest"
        session.note(f"note: the agent starts {pod.full_name} again; remove {manifest} to be rid of it")
