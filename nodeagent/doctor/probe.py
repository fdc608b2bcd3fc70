"""The process that tries the kernel's features: `python -m nodeagent.doctor.probe DIRECTORY` prints JSON.

    {"overlay": {"works": true, "detail": "..."}, ...}

Every probe runs in a child of its own, which enters namespaces of its own where it makes anything; what it made ends
with it. To fork and to enter namespaces needs a process with one thread, so nodectl starts this one and reads it.
DIRECTORY is empty, on the file system that the containers' layers will be on; whoever made it removes it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping

from nodeagent.doctor import confinement, isolation, networking

PROBE_SECONDS = 5
ANSWER_LIMIT = 16 << 10

PROBES: Mapping[str, Callable[[str], str]] = {**isolation.PROBES, **confinement.PROBES, **networking.PROBES}


def main() -> int:
    directory = sys.argv[1]
    answers = {}
    for name, probe in PROBES.items():
        own = os.path.join(directory, name.replace(" ", "-"))
        os.mkdir(own)
        works, detail = in_child(probe, own)
        answers[name] = {"works": works, "detail": detail}
    print(json.dumps(answers))
    return 0


def in_child(probe: Callable[[str], str], directory: str) -> tuple[bool, str]:
    """Run one probe in a forked child: whether it works, and its words or the failure's."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        signal.alarm(PROBE_SECONDS)  # ends the child, unless the kernel does not let go of it
        status, words = _answer(probe, directory)
        os.write(writer, words.encode("utf-8", "replace")[:ANSWER_LIMIT])
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        words = answer.read(ANSWER_LIMIT).decode("utf-8", "replace")
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return False, f"the attempt was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return os.WEXITSTATUS(status) == 0, words


def _answer(probe: Callable[[str], str], directory: str) -> tuple[int, str]:
    try:
        return 0, probe(directory)
    except Exception as error:  # noqa: BLE001  whatever it is, it is what the operator has to know
        notes = [note for note in getattr(error, "__notes__", ()) if note]
        return 1, "; ".join([str(error) or type(error).__name__, *notes])


if __name__ == "__main__":
    raise SystemExit(main())
