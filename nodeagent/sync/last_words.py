"""Termination messages: what a container wrote to its message file, or else the end of its log."""

from __future__ import annotations

import os
from collections.abc import Callable

from nodeagent.logs.lines import parse_line
from nodeagent.pods.pod import Pod
from nodeagent.sync.observed import Container
from nodeagent.sync.pod_files import PodFiles
from nodeagent.translate import marks

LOG_LIMIT = 2048
#: Of FallbackToLogsOnError (v1.TerminationMessagePolicy).
LOG_LINES = 80


def last_words(pod: Pod, files: PodFiles) -> Callable[[Container], str]:
    """A function that reads them for a dead container of the pod; each is read once."""
    known: dict[str, str] = {}

    def of(ended: Container) -> str:
        if ended.id not in known:
            known[ended.id] = files.read_message(pod.uid, ended.name, ended.attempt) or _from_log(ended)
        return known[ended.id]

    return of


def _from_log(ended: Container) -> str:
    if ended.annotations.get(marks.MESSAGE_POLICY) != "FallbackToLogsOnError" or not ended.exit_code:
        return ""
    try:
        with open(ended.log_path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - 4 * LOG_LIMIT, 0))
            lines = file.read(4 * LOG_LIMIT).splitlines()
    except OSError:
        # No log, no words: the exit code stands on its own.
        return ""
    entries = [entry for entry in map(parse_line, lines) if entry is not None]
    text = b"".join(entry.content for entry in entries[-LOG_LINES:])
    return text[-LOG_LIMIT:].decode(errors="replace")
