"""nodectl's entry: finds the verb, imports that one alone, and turns what goes wrong into one clear line.

Exit status: 0 done, 1 it failed, 2 wrong usage; `exec` gives the command's own.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from nodeagent.api.client import AgentRefused, AgentUnreachable
from nodeagent.ctl.output import FORMATS

VERBS = {
    "pods": "pods of this node: state, restarts, addresses, and why one waits",
    "ps": "containers",
    "logs": "a container's log; -f follows it",
    "exec": "run a command in a container; -it for a terminal",
    "inspect": "all that is known of a pod, container or image",
    "events": "what happened to pods; -f follows",
    "stats": "CPU, memory and processes of containers",
    "top": "stats, again and again",
    "images": "images of this node",
    "pull": "pull an image",
    "rmi": "remove images",
    "info": "the agent and the runtime: versions, sockets, health",
    "doctor": "what this host can and cannot do, and what to do about it",
    "fsck": "compare the ledger with the kernel: is anything left behind?",
    "completion": 'shell completion: eval "$(nodectl completion bash)"',
}


class Fault(Exception):
    """Something the operator asked for cannot be done; the message says what, why, and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None and "_ARGCOMPLETE" in os.environ:
        return _complete()
    verb = next((word for word in words if word in VERBS), None)
    parser = build_parser(verb)
    given = parser.parse_args(words)
    if given.verb is None:
        parser.print_help()
        return 2
    return _run(_module(given.verb), given)


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """All verbs by name, and one of them with its arguments."""
    parser = argparse.ArgumentParser(prog="nodectl", description="See and use the pods of this node.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, words in VERBS.items():
        each = verbs.add_parser(name, help=words, description=words)
        if name == verb:
            _common(each)
            _module(name).arguments(each)
    return parser


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"nodeagent.ctl.{verb}_verb")


def _common(parser: argparse.ArgumentParser) -> None:
    state = os.environ.get("NODEAGENT_STATE", "/run/nodeagent")
    parser.add_argument("--state", default=state, help="where the sockets are (default: %(default)s; $NODEAGENT_STATE)")
    parser.add_argument("--cri", default="", help="socket of the runtime (default: STATE/cri.sock)")
    parser.add_argument("--agent", default="", help="socket of the agent (default: STATE/agent.sock)")
    parser.add_argument("-o", "--output", choices=FORMATS, default="table", help="table for people, json for scripts")


def _run(module: ModuleType, given: argparse.Namespace) -> int:
    from cri.client import CriError

    try:
        return int(module.run(given))
    except (Fault, AgentRefused, AgentUnreachable) as error:
        return _failed(str(error))
    except CriError as error:
        if error.code == "UNAVAILABLE":
            return _failed(
                f"no container runtime answers ({error.details}); is it running? see: nodeagent up, or --cri"
            )
        return _failed(error.details or f"{error.method}: {error.code}")
    except BrokenPipeError:
        # The reader of a pipe has seen enough; nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return _failed(str(error))


def _failed(words: str) -> int:
    print(f"nodectl: {words}", file=sys.stderr)
    return 1


def _complete() -> int:
    import argcomplete

    verb = next((word for word in os.environ.get("COMP_LINE", "").split()[1:] if word in VERBS), None)
    argcomplete.autocomplete(build_parser(verb))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
