"""nodectl images."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from cri.proto import api_pb2 as api
from nodeagent.ctl import amounts
from nodeagent.ctl.output import Column, Document
from nodeagent.ctl.session import CALL_SECONDS, Session
from nodeagent.ctl.targets import short

COLUMNS = [
    Column("IMAGE", lambda row: row["name"].rpartition(":")[0]),
    Column("TAG", lambda row: row["name"].rpartition(":")[2]),
    Column("ID", lambda row: short(row["id"])),
    Column("SIZE", lambda row: amounts.size(row["size"]), right=True),
    Column("PINNED", lambda row: "yes" if row["pinned"] else "no", wide=True),
    Column("USER", "user", wide=True),
    Column("DIGEST", lambda row: ",".join(each.rpartition("@")[2] for each in row["digests"]), wide=True),
]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")


async def run(session: Session, given: argparse.Namespace) -> int:
    found = sorted((await session.cri.ListImages(timeout=CALL_SECONDS)).images, key=lambda image: names_of(image)[0])
    if given.quiet:
        session.output.line(*(image.id for image in found))
    elif session.output.format == "json":
        session.output.items("ImageList", [], [document(image) for image in found])
    else:
        session.output.items("ImageList", COLUMNS, [row for image in found for row in _rows(image)])
    return 0


def document(image: api.Image) -> Document:
    """One image of `-o json`; the names of its keys do not change. `size` in bytes."""
    return {
        "id": image.id,
        "tags": list(image.repo_tags),
        "digests": list(image.repo_digests),
        "size": image.size,
        "pinned": image.pinned,
        "user": image.username or (str(image.uid.value) if image.HasField("uid") else ""),
    }


def names_of(image: api.Image) -> list[str]:
    """Its tags, or where it has none what it was pulled as."""
    untagged = [each.partition("@")[0] + ":<none>" for each in image.repo_digests]
    return list(image.repo_tags) or untagged or ["<none>:<none>"]


def _rows(image: api.Image) -> Iterator[Document]:
    for name in names_of(image):
        yield {**document(image), "name": name}
