"""nodeagent's entry: `run` (the agent alone), `up` and `down` (a whole node), `fsck`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib import metadata

VERBS = {
    "run": ("nodeagent.daemon", "the agent alone, on any CRI runtime (for a service manager)"),
    "up": ("nodeagent.up.up", "runtime and agent in the foreground; --demo with a demo pod"),
    "down": ("nodeagent.up.down", "end all pods of a node whose daemons do not run"),
    "fsck": ("nodeagent.fsck_command", "compare the ledger with the kernel: is anything left behind?"),
}


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        print(f"nodeagent {metadata.version('nodeagent')}")
        return 0
    if not words or words[0] not in VERBS:
        return _usage(words)
    entry = importlib.import_module(VERBS[words[0]][0])
    return int(entry.main(words[1:]))


def _usage(words: Sequence[str]) -> int:
    asked = words[:1] in (["-h"], ["--help"])
    lines = ["usage: nodeagent [--version] VERB ...", "", *(f"  {name:<6} {help}" for name, (_, help) in VERBS.items())]
    if words and not asked:
        lines += ["", f"nodeagent: no verb {words[0]!r}"]
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == "__main__":
    raise SystemExit(main())
