"""nodectl events: the story of the pods as the agent tells it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from nodeagent.api.client import get
from nodeagent.ctl.connect import agent_socket
from nodeagent.ctl.output import age, emit_json, table

HEAD = ("LAST SEEN", "COUNT", "TYPE", "REASON", "POD", "MESSAGE")
WAIT = 30


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pod", nargs="?", default="", help="only of this pod (name or namespace/name)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as things happen")


def run(given: argparse.Namespace) -> int:
    items = _get(given, 0, 0)
    if not given.follow:
        if given.output == "json":
            emit_json({"items": items})
        else:
            print(table(HEAD, map(_row, items)))
        return 0
    last = 0
    while True:
        for item in items:
            last = max(last, item["number"])
            print(json.dumps(item) if given.output == "json" else "   ".join(map(str, _row(item))))
        sys.stdout.flush()
        items = _get(given, last, WAIT)


def _get(given: argparse.Namespace, since: int, wait: int) -> list[dict[str, Any]]:
    answer = get(agent_socket(given), f"/events?since={since}&wait={wait}", timeout=wait + 10.0)
    return [each for each in answer["items"] if given.pod in ("", each["pod"], f"{each['namespace']}/{each['pod']}")]


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    pod = f"{item['namespace']}/{item['pod']}"
    return age(item["lastTimestamp"]), item["count"], item["type"], item["reason"], pod, item["message"]
