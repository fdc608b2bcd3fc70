"""What most tests of a request begin and end with: a container, what it says from inside, and what crid refuses."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from cri.streaming_client import exec_session
from tests.support.crid import Crid, Sandbox

FOREVER = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


def security(**fields: Any) -> dict[str, Any]:
    return {"security_context": fields}


async def output(crid: Crid, image: str, script: str, /, pod: Sandbox | None = None, **fields: Any) -> list[str]:
    """The lines that a shell script writes to the log."""
    pod = pod or await crid.run_pod()
    await crid.ended(await crid.run(pod, image, ["sh", "-c", script], **fields))
    return crid.log_of(pod[1]).splitlines()


async def streamed(crid: Crid, container_id: str, *command: str, tty: bool) -> bytes:
    """What a command of Exec, the call with streams, writes."""
    asked = api.ExecRequest(container_id=container_id, cmd=command, stdout=True, stderr=not tty, tty=tty)
    with tempfile.TemporaryFile() as out:
        url = (await crid.cri.Exec(asked)).url
        assert await exec_session(url, stdin=None, stdout=out.fileno(), stderr=out.fileno()) == 0
        out.seek(0)
        return out.read()


async def needs_user_namespaces(crid: Crid) -> None:
    """Skip the test where a pod cannot have one."""
    found = json.loads((await crid.cri.Status(verbose=True)).info["security"])
    if not found["user_namespaces"]:
        pytest.skip("layers cannot be id-mapped here; tmpfs can since Linux 6.3")


async def refused(crid: Crid, image: str, words: str, code: str = "INVALID_ARGUMENT", **fields: Any) -> None:
    with pytest.raises(CriError, match=words) as caught:
        await crid.create(await crid.run_pod(), image, ["true"], **fields)
    assert caught.value.code == code


async def container_of(crid: Crid, image: str, command: list[str] | None = None, **fields: object) -> str:
    """A container that runs until it is told to end, in a pod of its own: its id."""
    return await crid.run(await crid.run_pod(), image, command or FOREVER, **fields)
