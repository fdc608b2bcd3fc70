"""nodectl rm: pods or containers, with all that belongs to them."""

from __future__ import annotations

import argparse

from cri.proto import api_pb2 as api
from nodeagent.ctl.complaint import Complaint
from nodeagent.ctl.completers import completed, pods
from nodeagent.ctl.session import Session
from nodeagent.ctl.stop_verb import GRACE, stop_container, stop_pod, warn_of_return
from nodeagent.ctl.targets import find, short
from nodeagent.ctl.world import Pod, look


def arguments(parser: argparse.ArgumentParser) -> None:
    completed(parser.add_argument("target", nargs="+", metavar="POD|CONTAINER", help="names or ids"), pods)
    parser.add_argument("-f", "--force", action="store_true", help="running ones too: they are stopped first")


async def run(session: Session, given: argparse.Namespace) -> int:
    world = await look(session)
    every = [find(world, word) for word in given.target]
    for found in every:
        if _runs(found) and not given.force:
            name = found.full_name if isinstance(found, Pod) else found.metadata.name
            raise Complaint(f"{name} runs; stop it first, or use rm -f")
    for found in every:
        pod = found if isinstance(found, Pod) else world.pod_of(found)
        if isinstance(found, Pod):
            await _remove_pod(session, found)
            session.output.line(f"removed pod {found.full_name}")
        else:
            await stop_container(session, found, GRACE)
            await session.cri.RemoveContainer(container_id=found.id)
            session.output.line(f"removed container {short(found.id)} ({found.metadata.name})")
        warn_of_return(session, pod)
    return 0


def _runs(found: Pod | api.Container) -> bool:
    containers = found.containers if isinstance(found, Pod) else [found]
    return any(each.state == api.CONTAINER_RUNNING for each in containers)


async def _remove_pod(session: Session, pod: Pod) -> None:
    await stop_pod(session, pod, GRACE)
    for sandbox in pod.sandboxes:
        await session.cri.RemovePodSandbox(pod_sandbox_id=sandbox.id)
