"""nodectl images."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from cri.proto import api_pb2
from nodeagent.ctl.connect import QUICK, connect
from nodeagent.ctl.output import emit_json, plain, size, table

SHORT = 13


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")


def run(given: argparse.Namespace) -> int:
    with connect(given) as cri:
        found = list(cri.ListImages(timeout=QUICK).images)
    if given.output == "json":
        emit_json({"items": [plain(each) for each in found]})
    elif given.quiet:
        print("\n".join(each.id for each in found))
    else:
        print(table(("IMAGE", "TAG", "ID", "SIZE"), sorted(row for each in found for row in _rows(each))))
    return 0


def _rows(image: api_pb2.Image) -> Iterator[tuple[str, str, str, str]]:
    short = image.id.removeprefix("sha256:")[:SHORT]
    for name in (
        image.repo_tags or [each.partition("@")[0] + ":<none>" for each in image.repo_digests] or ["<none>:<none>"]
    ):
        repository, _, tag = name.rpartition(":")
        yield repository, tag, short, size(image.size)
