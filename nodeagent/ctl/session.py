"""One run of nodectl: the two sockets it talks to, and the boundary where failures become one clear line."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from cri.client import CriClient, CriError
from cri.streaming_client import StreamFailed
from nodeagent.api.client import AgentRefused, AgentUnreachable, get
from nodeagent.ctl.complaint import FAILURE, Complaint
from nodeagent.ctl.output import Output
from runtime.linux.database import DatabaseError

INTERRUPTED = 130
#: Deadline of calls that only ask.
CALL_SECONDS = 30.0
AGENT_SECONDS = 5.0
CONNECT_SECONDS = 2.0


class Session:
    """`cri` is made on first use, in the running loop."""

    def __init__(self, cri: str, agent: Path, output: Output) -> None:
        self.address = cri
        self.agent = agent
        self.output = output
        self._client: CriClient | None = None

    @property
    def cri(self) -> CriClient:
        if self._client is None:
            self._client = CriClient(self.address)
        return self._client

    async def ask_agent(self, resource: str, timeout: float = AGENT_SECONDS) -> Any:
        """GET from the agent's status API. Raises AgentUnreachable, AgentRefused."""
        return await asyncio.to_thread(get, self.agent, resource, timeout=timeout)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def note(self, words: str) -> None:
        """A remark beside the output, which scripts do not read."""
        print(words, file=sys.stderr, flush=True)


Verb = Callable[[Session, argparse.Namespace], Awaitable[int]]


def run(verb: Verb, given: argparse.Namespace) -> int:
    """Do one verb: its exit status. Every expected failure ends as one line on stderr."""
    try:
        return asyncio.run(_run(verb, given))
    except (Complaint, AgentUnreachable, AgentRefused, StreamFailed) as error:
        return _complain(str(error), getattr(error, "status", FAILURE))
    except CriError as error:
        return _complain(explain(error, given.cri))
    except BrokenPipeError:
        # Whoever read us has seen enough; the interpreter must not fail again when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        return _complain("; ".join([str(error), *getattr(error, "__notes__", ())]))
    except DatabaseError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _run(verb: Verb, given: argparse.Namespace) -> int:
    session = Session(given.cri, given.agent, Output(given.output))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(session.close)
        return await verb(session, given)


def explain(error: CriError, address: str) -> str:
    """A failed call in words, with the remedy where it is plain."""
    path = Path(address.removeprefix("unix://"))
    # A runtime that is there says this too, such as of a registry that it does not reach.
    if error.code == "UNAVAILABLE" and not listens(path):
        if path.is_absolute() and path.exists() and not os.access(path, os.W_OK):
            return f"{path} is not yours to open: run nodectl as root"
        return f"no CRI runtime answers on {address}: start it with `nodeagent up` or `systemctl start crid`"
    if error.code == "DEADLINE_EXCEEDED":
        return f"the runtime on {address} did not answer {error.method} in time; see its log"
    if error.code == "UNIMPLEMENTED":
        return f"the runtime on {address} has no call {error.method}"
    return error.details or f"{error.method}: {error.code}"


def listens(path: Path) -> bool:
    """Whether somebody accepts connections on a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(CONNECT_SECONDS)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _complain(words: str, status: int = FAILURE) -> int:
    print(f"nodectl: {' '.join(words.split())}", file=sys.stderr)
    return status
