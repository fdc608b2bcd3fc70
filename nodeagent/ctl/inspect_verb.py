"""nodectl inspect: the whole truth about one thing, always as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cri.client import CriClientSync
from cri.proto import api_pb2
from nodeagent.ctl.connect import QUICK, connect
from nodeagent.ctl.find import complete_pods, find_container, find_sandbox
from nodeagent.ctl.main import Fault
from nodeagent.ctl.output import emit_json, plain


def arguments(parser: argparse.ArgumentParser) -> None:
    name = parser.add_argument("name", help="pod, container id or image")
    name.completer = complete_pods  # type: ignore[attr-defined]
    parser.add_argument("-c", "--container", default="", help="of this pod")


def run(given: argparse.Namespace) -> int:
    with connect(given) as cri:
        for look in (_image, _container, _sandbox):
            found = look(cri, given)
            if found is not None:
                emit_json(found)
                return 0
    raise Fault(f"no pod, container or image {given.name!r} on this node; see: nodectl pods, ps -a, images")


def _image(cri: CriClientSync, given: argparse.Namespace) -> dict[str, Any] | None:
    if given.container or not any(mark in given.name for mark in ":/@"):
        return None
    answer = cri.ImageStatus(image=api_pb2.ImageSpec(image=given.name), verbose=True, timeout=QUICK)
    return _merged({"image": plain(answer.image)}, answer.info) if answer.image.id else None


def _container(cri: CriClientSync, given: argparse.Namespace) -> dict[str, Any] | None:
    try:
        if not given.container and find_sandbox(cri, given.name):
            return None
    except Fault:
        pass
    try:
        found = find_container(cri, given.name, given.container)
    except Fault:
        if given.container:
            raise
        return None
    answer = cri.ContainerStatus(container_id=found.id, verbose=True, timeout=QUICK)
    return _merged({"status": plain(answer.status)}, answer.info)


def _sandbox(cri: CriClientSync, given: argparse.Namespace) -> dict[str, Any] | None:
    try:
        found = find_sandbox(cri, given.name)
    except Fault:
        return None
    answer = cri.PodSandboxStatus(pod_sandbox_id=found.id, verbose=True, timeout=QUICK)
    inside = [plain(each) for each in answer.containers_statuses]
    return _merged({"status": plain(answer.status), "containers": inside}, answer.info)


def _merged(document: dict[str, Any], info: Any) -> dict[str, Any]:
    """`info` maps names to JSON texts (api.proto); what is none stays text."""
    for name, text in info.items():
        try:
            document[name] = json.loads(text)
        except ValueError:
            document[name] = text
    return document
