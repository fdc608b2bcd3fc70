"""`crid import`: images into the store from files of this machine, where there is no registry.

    crid import --archive image.tar            an OCI layout or a docker-archive, under the names it gives itself
    crid import --busybox localhost/demo:1     an image made of the installed busybox-static

The CRI has no call for it, and a running crid holds its store in memory: so it works on the store of a crid that does
not run, and says so otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from cri.server.assembly import OWNER
from cri.server.config import Config, from_arguments
from cri.server.listening import exclusive
from cri.server.starting import START_ERRORS
from images import Image, ImageError, ImageStore
from images.build import busybox_tree
from runtime.linux.ledger import Ledger
from runtime.linux.records import Records

BUSYBOX_CONFIG = {"Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/bin"]}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="crid import", description="Import images while crid does not run.")
    parser.add_argument("--root", type=Path, help="crid's root (default /var/lib/nodeagent)")
    parser.add_argument("--config", type=Path, help="crid's TOML file")
    parser.add_argument("--name", help="what to call the image of an archive")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--archive", type=Path, metavar="FILE", help="OCI layout (directory or tar) or docker-archive")
    source.add_argument("--busybox", metavar="NAME", help="make an image of this machine's /bin/busybox")
    given = parser.parse_args(argv)
    try:
        config = from_arguments(given)
        with exclusive(config.root):
            found = asyncio.run(_import(config, given))
    except (ImageError, *START_ERRORS) as error:
        print(f"crid import: {error}", file=sys.stderr)
        return 1
    for image in found:
        print(f"{image.id}  {', '.join(image.repo_tags) or '<none>'}")
    return 0


async def _import(config: Config, given: argparse.Namespace) -> Sequence[Image]:
    database = config.root / "ledger.db"
    ledger, records = Ledger(database, OWNER), Records(database)
    store = ImageStore(config.root, ledger, records, registries=config.registries)
    try:
        await store.recover()
        if given.busybox:
            return [await store.build_from_files(given.busybox, busybox_tree(), BUSYBOX_CONFIG)]
        return await store.import_archive(given.archive, given.name)
    finally:
        await store.close()
        records.close()
        ledger.close()
