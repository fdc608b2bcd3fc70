"""nodectl rmi: an image goes under all its names, as the CRI has it."""

from __future__ import annotations

import argparse

from cri.client import CriError
from cri.proto import api_pb2 as api
from nodeagent.ctl.completers import completed, images
from nodeagent.ctl.session import CALL_SECONDS, Session, explain


def arguments(parser: argparse.ArgumentParser) -> None:
    completed(parser.add_argument("images", nargs="+", metavar="IMAGE", help="name or id"), images)


async def run(session: Session, given: argparse.Namespace) -> int:
    """One that cannot be removed keeps none of the others."""
    removed, failed = [], False
    for name in given.images:
        try:
            found = (await session.cri.ImageStatus(image=api.ImageSpec(image=name), timeout=CALL_SECONDS)).image
            if not found.id:
                session.note(f"nodectl: no image {name!r} on this node; see: nodectl images")
                failed = True
                continue
            await session.cri.RemoveImage(image=api.ImageSpec(image=found.id))
        except CriError as error:
            session.note(f"nodectl: {name}: {explain(error, session.address)}")
            failed = True
        else:
            removed.append({"id": found.id, "tags": list(found.repo_tags)})
    if session.output.format == "json":
        session.output.json({"removed": removed})
    else:
        session.output.line(*(f"removed {each['id']} {', '.join(each['tags'])}".rstrip() for each in removed))
    return 1 if failed else 0
