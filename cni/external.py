"""Plugins that are programs: found in the directories of CNI_PATH, run with a deadline, and not believed.

A plugin may fail, hang, write without end, print something that is no answer, or report an error and exit 0. Each ends
as PluginFailed with the plugin, the command, the attachment and what it said; a hanging one is killed with
its process group.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cni import call as commands
from cni.call import Call
from cni.errors import DecodingFailure, ErrorCode, PluginFailed
from cni.names import check_plugin_type
from cni.result import Result, parse_result
from runtime.linux.commands import CommandFailed, CommandTimeout, Completed, run_command

#: More than any result: the largest that plugins print are some KiB.
OUTPUT_LIMIT: Final = 1 << 20
EXCERPT: Final = 400
#: While an installer writes over a program, execve says ETXTBSY; it is over in a moment.
BUSY_TRIES: Final = 5
BUSY_PAUSE_S: Final = 0.2


def find_program(kind: str, path: Sequence[str]) -> str:
    """The program of a plugin; raises PluginFailed (code "not available") when no directory has it."""
    check_plugin_type(kind)
    for directory in path:
        candidate = os.path.join(directory, kind)
        try:
            mode = os.stat(candidate).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            return candidate
    raise PluginFailed(
        f"CNI plugin {kind!r} is not installed",
        f"no executable of that name in {', '.join(path) or 'no directory at all'}; install it there, "
        "or remove the plugin from the network configuration",
        code=ErrorCode.NOT_AVAILABLE,
    )


def run_program(kind: str, call: Call, *, timeout: float) -> Result | None:
    """Execute a plugin; the result of ADD, None of other commands. Blocks for `timeout` seconds at most.

    Raises PluginFailed.
    """
    program = find_program(kind, call.path)
    subject = _subject(kind, call)
    completed = _execute(program, call, subject, timeout)
    if completed.returncode != 0:
        raise _reported(subject, completed)
    if call.command != commands.ADD:
        return None
    doc = _decode(subject, completed)
    if "code" in doc and "ips" not in doc and doc["code"]:
        raise _error_from(f"{subject} exited with 0, but reported an error", doc)
    try:
        return parse_result(doc, call.version)
    except DecodingFailure as error:
        raise PluginFailed(f"{subject} answered with something else than a result", str(error)) from error


def _subject(kind: str, call: Call) -> str:
    whom = f" for container {call.container_id}, interface {call.ifname}" if call.container_id else ""
    return f"CNI plugin {kind!r}: {call.command} on network {call.network!r}{whom}"


def _execute(program: str, call: Call, subject: str, timeout: float) -> Completed:
    deadline = time.monotonic() + timeout
    request = json.dumps(dict(call.config)).encode()
    for attempt in range(1, BUSY_TRIES + 1):
        try:
            return run_command(
                [program],
                input=request,
                timeout=max(deadline - time.monotonic(), 0.001),
                limit=OUTPUT_LIMIT,
                env=_environment(call),
            )
        except CommandTimeout as error:
            raise PluginFailed(
                f"{subject} did not answer within {timeout:g} s and was killed", _excerpt(error.stderr)
            ) from error
        except CommandFailed as error:
            raise PluginFailed(f"{subject} failed", str(error)) from error
        except OSError as error:
            if error.errno != errno.ETXTBSY or attempt == BUSY_TRIES:
                raise PluginFailed(f"{subject}: {program} cannot be executed", str(error)) from error
            time.sleep(BUSY_PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


def _environment(call: Call) -> dict[str, str]:
    """Ours with the call's parameters: plugins expect PATH and proxy settings, and none of another call's CNI_*."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CNI_", "NODEAGENT_"))}
    return inherited | call.environment()


def _reported(subject: str, completed: Completed) -> PluginFailed:
    how = f"exit status {completed.returncode}" if completed.returncode > 0 else f"signal {-completed.returncode}"
    try:
        doc = json.loads(completed.stdout)
    except ValueError:
        said = _excerpt(completed.stderr) or _excerpt(completed.stdout) or "it said nothing"
        return PluginFailed(f"{subject} failed ({how})", said)
    if not isinstance(doc, dict) or not (doc.get("msg") or doc.get("code")):
        return PluginFailed(f"{subject} failed ({how})", _excerpt(completed.stdout))
    return _error_from(f"{subject} failed", doc)


def _error_from(subject: str, doc: Mapping[str, Any]) -> PluginFailed:
    code = doc.get("code")
    number = code if isinstance(code, int) and not isinstance(code, bool) else ErrorCode.INTERNAL
    said = ": ".join(str(doc[key])[:EXCERPT] for key in ("msg", "details") if doc.get(key))
    return PluginFailed(f"{subject}: {said or 'no message'} (code {number})", code=number)


def _decode(subject: str, completed: Completed) -> dict[str, Any]:
    try:
        doc = json.loads(completed.stdout)
    except (ValueError, RecursionError) as error:
        shown = _excerpt(completed.stdout) or "nothing"
        raise PluginFailed(f"{subject} exited with 0, but its answer is not JSON", f"it printed: {shown}") from error
    if not isinstance(doc, dict):
        raise PluginFailed(f"{subject} exited with 0, but its answer is not a JSON object", _excerpt(completed.stdout))
    return doc


def _excerpt(output: bytes) -> str:
    text = output[-EXCERPT:] if len(output) > EXCERPT else output
    return "".join(letter if letter.isprintable() else " " for letter in text.decode("utf-8", "replace")).strip()
