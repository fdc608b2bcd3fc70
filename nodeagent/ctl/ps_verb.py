"""nodectl ps."""

from __future__ import annotations

import argparse

from cri.proto import api_pb2
from nodeagent.ctl.connect import connect
from nodeagent.ctl.find import POD_NAME, POD_NAMESPACE, containers, state_name
from nodeagent.ctl.output import age, emit_json, plain, table

HEAD = ("CONTAINER", "NAMESPACE", "POD", "NAME", "STATE", "ATTEMPT", "AGE", "IMAGE")
SHORT = 13
"""Digits of an id that people see."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="those too that do not run")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")


def run(given: argparse.Namespace) -> int:
    with connect(given) as cri:
        found = [each for each in containers(cri) if given.all or each.state == api_pb2.CONTAINER_RUNNING]
    if given.output == "json":
        emit_json({"items": [plain(each) for each in found]})
    elif given.quiet:
        print("\n".join(each.id for each in found))
    else:
        print(table(HEAD, map(_row, found)))
    return 0


def _row(each: api_pb2.Container) -> tuple[object, ...]:
    labels = each.labels
    return (
        each.id[:SHORT],
        labels.get(POD_NAMESPACE, "-"),
        labels.get(POD_NAME, "-"),
        each.metadata.name,
        state_name(each.state),
        each.metadata.attempt,
        age(each.created_at),
        each.image.user_specified_image or each.image.image[:40],
    )
