"""nodectl inspect: all that the runtime and the agent know of one thing, always as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict

from cri.proto import api_pb2 as api
from nodeagent.ctl.complaint import Complaint
from nodeagent.ctl.completers import completed, containers, pods
from nodeagent.ctl.output import Document
from nodeagent.ctl.session import CALL_SECONDS, Session
from nodeagent.ctl.targets import find, find_container
from nodeagent.ctl.world import Pod, World, look


def arguments(parser: argparse.ArgumentParser) -> None:
    completed(parser.add_argument("target", nargs="+", metavar="POD|CONTAINER|IMAGE", help="names or ids"), pods)
    completed(parser.add_argument("-c", "--container", default="", help="of this pod"), containers)


async def run(session: Session, given: argparse.Namespace) -> int:
    world = await look(session)
    found = [await _inspected(session, world, word, given.container) for word in given.target]
    session.output.json(found[0] if len(found) == 1 else {"kind": "List", "items": found})
    return 0


async def _inspected(session: Session, world: World, word: str, container: str) -> Document:
    try:
        found = find_container(world, word, container)[0] if container else find(world, word)
    except Complaint as unknown:
        image = await _image(session, word)
        if image is None or container:
            raise Complaint(f"{unknown}; no image either") from None
        return image
    return await _pod(session, found) if isinstance(found, Pod) else await _container(session, found)


async def _pod(session: Session, pod: Pod) -> Document:
    document: Document = {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid, "sandboxes": []}
    for sandbox in pod.sandboxes:
        answer = await session.cri.PodSandboxStatus(pod_sandbox_id=sandbox.id, verbose=True, timeout=CALL_SECONDS)
        inside = [_plain(each) for each in answer.containers_statuses]
        document["sandboxes"].append(
            {"status": _plain(answer.status), "containers": inside, "info": parsed(answer.info)}
        )
    return document | {"manifest": pod.document}


async def _container(session: Session, container: api.Container) -> Document:
    answer = await session.cri.ContainerStatus(container_id=container.id, verbose=True, timeout=CALL_SECONDS)
    return {"kind": "Container", "status": _plain(answer.status), "info": parsed(answer.info)}


async def _image(session: Session, word: str) -> Document | None:
    answer = await session.cri.ImageStatus(image=api.ImageSpec(image=word), verbose=True, timeout=CALL_SECONDS)
    if not answer.image.id:
        return None
    return {"kind": "Image", "image": _plain(answer.image), "info": parsed(answer.info)}


def _plain(message: Any) -> Document:
    document: Document = MessageToDict(message, always_print_fields_with_no_presence=True)
    return document


def parsed(info: Mapping[str, str]) -> Document:
    """`info` maps names to what mostly is JSON (api.proto); other text stays text."""
    document: Document = {}
    for name, text in info.items():
        try:
            document[name] = json.loads(text)
        except ValueError:
            document[name] = text
    return document
