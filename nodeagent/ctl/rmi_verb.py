"""nodectl rmi: an image goes under all its names, as the CRI has it."""

from __future__ import annotations

import argparse
import sys

from cri.client import CriError
from cri.proto import api_pb2
from nodeagent.ctl.connect import QUICK, connect
from nodeagent.ctl.output import emit_json


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="name or id")


def run(given: argparse.Namespace) -> int:
    removed, failed = [], False
    with connect(given) as cri:
        for name in given.images:
            spec = api_pb2.ImageSpec(image=name)
            try:
                found = cri.ImageStatus(image=spec, timeout=QUICK).image
                if not found.id:
                    print(f"nodectl: no image {name!r} on this node; see: nodectl images", file=sys.stderr)
                    failed = True
                    continue
                cri.RemoveImage(image=api_pb2.ImageSpec(image=found.id))
                removed.append({"id": found.id, "repo_tags": list(found.repo_tags)})
            except CriError as error:
                print(f"nodectl: {name}: {error.details}", file=sys.stderr)
                failed = True
    if given.output == "json":
        emit_json({"removed": removed})
    else:
        for each in removed:
            print(f"removed {each['id']} {', '.join(each['repo_tags'])}")
    return 1 if failed else 0
