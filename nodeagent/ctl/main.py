"""nodectl's entry: finds the verb, imports that one alone, and gives the shell its completions.

Exit status: 0 done, 1 it failed, 2 wrong usage; `exec` gives the command's own.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

VERBS = {
    "pods": "pods of this node: state, restarts, addresses, and why one waits",
    "ps": "containers",
    "logs": "a container's log; -f follows it",
    "exec": "run a command in a container; -it for a terminal",
    "inspect": "all that is known of a pod, container or image, as JSON",
    "events": "what happened to pods; -f follows",
    "stats": "CPU, memory and processes of pods and containers; -w goes on",
    "top": "the same as stats -w",
    "stop": "stop pods or containers",
    "rm": "remove pods or containers",
    "images": "images of this node",
    "pull": "pull an image",
    "rmi": "remove images",
    "doctor": "what this host can and cannot do, and what to do about it",
    "fsck": "compare the ledger with the kernel: is anything left behind?",
    "completion": 'shell completion: eval "$(nodectl completion bash)"',
    "version": "versions of nodectl, runtime and agent",
}

STATE = "/run/nodeagent"
FORMATS = ("table", "wide", "json")


def main(argv: Sequence[str] | None = None) -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log would mix with ours; read when it is imported
    if argv is None and "_ARGCOMPLETE" in os.environ:
        _complete()
    words, command = _split(list(sys.argv[1:] if argv is None else argv))
    parser = build_parser(words)
    given = parser.parse_args(words)
    if given.verb is None:
        parser.print_help(sys.stderr)
        return 2
    given.command = command
    from nodeagent.ctl.session import run  # gRPC, which help and completion need not wait for

    return run(_module(given.verb).run, given)


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Ours, and the command behind "--"."""
    if "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def build_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """All verbs by name, and those among `words` with their arguments."""
    parser = argparse.ArgumentParser(prog="nodectl", description="See and use the pods of this node.")
    _common(parser, os.environ.get("NODEAGENT_STATE", STATE))
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, summary in VERBS.items():
        each = verbs.add_parser(name, help=summary, description=summary)
        if name in words:
            _common(each, None)
            _module(name).arguments(each)
    return parser


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"nodeagent.ctl.{verb}_verb")


def _common(parser: argparse.ArgumentParser, state: str | None) -> None:
    """Before the verb (with a `state` directory for the defaults) and, said again, behind it."""

    def default(value: Any) -> Any:
        return argparse.SUPPRESS if state is None else value

    parser.add_argument(
        "--cri",
        metavar="SOCKET",
        default=default(f"unix://{state}/cri.sock"),
        help=f"of the container runtime (default: unix://{STATE}/cri.sock; $NODEAGENT_STATE moves it)",
    )
    parser.add_argument(
        "--agent",
        metavar="SOCKET",
        type=Path,
        default=default(Path(f"{state}/agent.sock")),
        help=f"of the node agent (default: {STATE}/agent.sock)",
    )
    parser.add_argument(
        "-o", "--output", choices=FORMATS, default=default("table"), help="tables for people, json for scripts"
    )


def _complete() -> None:
    """Answers the shell and ends the process."""
    import argcomplete

    line = os.environ.get("COMP_LINE", "")
    try:
        words = shlex.split(line)
    except ValueError:  # a quotation that is still open
        words = line.split()
    argcomplete.autocomplete(build_parser(words))


if __name__ == "__main__":
    raise SystemExit(main())
