"""Termination messages: what a container wrote to its message file, or else the end of its log.

Both lie where the pod can put something else in their place, so they are read beside the loop that serves every pod.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nodeagent.logs.lines import parse_line
from nodeagent.logs.opening import open_log
from nodeagent.sync.observed import Container, State
from nodeagent.sync.pod_files import PodFiles
from nodeagent.translate import marks
from nodeagent.volumes.deadline import LOCAL, within

LOG_LIMIT = 2048
#: Of FallbackToLogsOnError (v1.TerminationMessagePolicy).
LOG_LINES = 80


class LastWords:
    """Of the dead containers of one pod: read once, and kept as long as the container is there."""

    def __init__(self, files: PodFiles) -> None:
        self._files = files
        self._known: dict[str, str] = {}

    async def learn(self, uid: str, containers: Iterable[Container]) -> None:
        """`containers` are all that there are of the pod `uid`."""
        dead = {each.id: each for each in containers if each.state in (State.EXITED, State.UNKNOWN)}
        self._known = {id: words for id, words in self._known.items() if id in dead}
        for id in dead.keys() - self._known.keys():
            try:
                self._known[id] = await within(LOCAL, self._read, uid, dead[id])
            except OSError:
                # No log, no words: the exit code stands on its own.
                self._known[id] = ""

    def of(self, ended: Container) -> str:
        """Nothing, for one that has said nothing."""
        return self._known.get(ended.id, "")

    def _read(self, uid: str, ended: Container) -> str:
        return self._files.read_message(uid, ended.name, ended.attempt) or _from_log(ended)


def _from_log(ended: Container) -> str:
    if ended.annotations.get(marks.MESSAGE_POLICY) != "FallbackToLogsOnError" or not ended.exit_code:
        return ""
    with open_log(Path(ended.log_path)) as file:
        file.seek(max(os.fstat(file.fileno()).st_size - 4 * LOG_LIMIT, 0))
        lines = file.read(4 * LOG_LIMIT).splitlines()
    entries = [entry for entry in map(parse_line, lines) if entry is not None]
    text = b"".join(entry.content for entry in entries[-LOG_LINES:])
    return text[-LOG_LIMIT:].decode(errors="replace")
