"""nodectl top: stats that renew themselves, until Ctrl-C."""

from __future__ import annotations

import argparse
import time

from nodeagent.ctl.connect import connect
from nodeagent.ctl.output import emit_json, plain
from nodeagent.ctl.stats_verb import render, sample


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pod", nargs="?", default="", help="only of this pod")
    parser.add_argument("-d", "--delay", type=float, default=2.0, help="seconds between two samples")
    parser.add_argument("-n", "--iterations", type=int, default=0, help="end after so many; 0: never")


def run(given: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    delay = max(given.delay, 0.2)
    with connect(given) as cri, Live(console=Console(), auto_refresh=False, transient=False) as live:
        before = sample(cri, given.pod)
        count = 0
        while not given.iterations or count < given.iterations:
            time.sleep(delay)
            now = sample(cri, given.pod)
            if given.output == "json":
                emit_json({"items": [plain(each) for each in now]})
            else:
                live.update(Text(render(now, before), no_wrap=True), refresh=True)
            before, count = now, count + 1
    return 0
