"""Lifecycle hooks: exec and sleep (v1.LifecycleHandler). An exec goes through the CRI like any other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from cri.client import CriClient, CriError
from cri.proto import api_pb2

#: Seconds that the runtime may take beyond the command's own time to say that it was cut off.
SLACK = 10.0
#: Characters of a failed command's output that the error repeats.
SHOWN = 400


class HookFailed(Exception):
    """The hook could not be run, or said that it failed; the message says how."""


async def run_hook(cri: CriClient, container_id: str, handler: Mapping[str, Any], timeout: float) -> None:
    """Raises HookFailed, also when `timeout` seconds are over."""
    if handler.get("sleep") is not None:
        seconds = handler["sleep"].get("seconds") or 0
        await asyncio.sleep(min(seconds, timeout))
        if seconds > timeout:
            raise HookFailed(f"sleep of {seconds} s was cut off after {timeout:.0f} s")
        return
    command = handler["exec"]["command"]
    try:
        request = api_pb2.ExecSyncRequest(container_id=container_id, cmd=command, timeout=max(1, round(timeout)))
        answer = await cri.ExecSync(request, timeout=timeout + SLACK)
    except CriError as error:
        raise HookFailed(f"{command}: {error.details or error.code}") from error
    if answer.exit_code:
        output = (answer.stderr or answer.stdout).decode(errors="replace").strip()[-SHOWN:]
        raise HookFailed(f"{command} exited with code {answer.exit_code}: {output}")
