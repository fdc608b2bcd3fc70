"""Exec and attach: moves bytes between a client's streams and a process's, and tells the client how it ended.

    stdin, resize   client -> process, in the background: the session does not wait for them
    stdout, stderr  process -> client; when the process has ended, what it left in the pipes still goes out
    error           the ending, as the protocol's version has it

The same for SPDY and WebSocket: those bring a `ClientStreams` and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cri.server.streaming.descriptors import Readable, Writable
from cri.server.streaming.endpoints import Sink, Source
from cri.server.streaming.resize import SizeDecoder
from cri.server.streaming.runtime import Session, StreamingError
from cri.server.streaming.status import Ending

log = logging.getLogger(__name__)

QUIET = 1.0  # seconds without output after the exit that mean: a background child holds the pipe, and will for ever
DRAIN = 60.0  # seconds after the exit during which such a child's output is passed on at most


@dataclass(slots=True)
class ClientStreams:
    """What the client opened; `error` is always there. `structured` says that it takes a Status there."""

    error: Sink
    structured: bool
    stdin: Source | None = None
    stdout: Sink | None = None
    stderr: Sink | None = None
    resize: Source | None = None

    def outputs(self) -> list[Sink]:
        return [sink for sink in (self.stdout, self.stderr) if sink is not None]


async def run(start: Callable[[], Awaitable[Session]], client: ClientStreams, *, attached: bool) -> None:
    """From start to the client's status. To be cancelled when the client leaves: a command is killed then.

    `attached`: the streams are the container's own, so their end is the end, and there is no exit code to tell.
    """
    ending = await _ending(start, client, attached)
    for sink in client.outputs():
        await sink.close()
    report = ending.as_status() if client.structured else ending.as_text()
    if report:
        await client.error.write(report)
    await client.error.close()


async def _ending(start: Callable[[], Awaitable[Session]], client: ClientStreams, attached: bool) -> Ending:
    try:
        session = await start()
    except (StreamingError, OSError) as error:
        return Ending(error=str(error))
    transfer = _Transfer(session, client)
    try:
        if attached:
            await transfer.until_detached()
            return Ending()
        return Ending(exit_code=await transfer.until_exit())
    except StreamingError as error:
        return Ending(error=str(error))
    finally:
        await transfer.close()


class _Transfer:
    """The copying tasks of one session, and the descriptors that they own."""

    def __init__(self, session: Session, client: ClientStreams) -> None:
        self._session = session
        self._stdin = None if session.stdin is None else Writable(session.stdin)
        pairs = ((session.stdout, client.stdout), (session.stderr, client.stderr))
        outputs = [(Readable(descriptor), sink) for descriptor, sink in pairs if descriptor is not None]
        self._readables = [readable for readable, _ in outputs]
        self._outward = [asyncio.create_task(_copy_out(readable, sink)) for readable, sink in outputs]
        self._inward = [
            asyncio.create_task(_copy_in(client.stdin, self._stdin)),
            asyncio.create_task(_follow_sizes(client.resize, session)),
        ]

    async def until_exit(self) -> int:
        """Until the process has ended and its output has gone out; the exit code."""
        code = await self._session.wait()
        await self._drain()
        return code

    async def until_detached(self) -> None:
        """Until the container has ended, or its streams have."""
        exited = asyncio.create_task(self.until_exit())
        outputs_ended = asyncio.gather(*self._outward) if self._outward else exited
        try:
            await asyncio.wait({exited, outputs_ended}, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                exited.result()
        finally:
            exited.cancel()
            await asyncio.gather(exited, return_exceptions=True)

    async def _drain(self) -> None:
        """Pass on what the process left. A child of its own may hold the pipes open: wait for silence, not for ever.

        Silence is a pipe with nothing in it, not a client that is slow to take what was in it.
        """
        pending = set(self._outward)
        deadline = asyncio.get_running_loop().time() + DRAIN
        while pending and asyncio.get_running_loop().time() < deadline:
            done, pending = await asyncio.wait(pending, timeout=QUIET)
            if not done and all(readable.quiet_for(QUIET) for readable in self._readables):
                return

    async def close(self) -> None:
        """Stop the copying, close what it used, end the session. Idempotent."""
        tasks = [*self._inward, *self._outward]
        for task in tasks:
            task.cancel()
        try:
            for failure in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(failure, Exception):
                    log.warning("copying of a streaming session failed: %r", failure)
        finally:
            for descriptor in (self._stdin, *self._readables):
                if descriptor is not None:
                    descriptor.close()
            await self._session.close()


async def _copy_out(readable: Readable, sink: Sink | None) -> None:
    """The process must not notice a client that does not want this stream, or no more: its output is then dropped."""
    while chunk := await readable.read():
        if sink is not None:
            try:
                await sink.write(chunk)
            except ConnectionError:
                sink = None


async def _copy_in(source: Source | None, stdin: Writable | None) -> None:
    """Likewise the client of a process that closed its stdin: what still comes is taken and dropped."""
    wanted = stdin
    while source is not None and (chunk := await source.read()):
        if wanted is not None:
            try:
                await wanted.write(chunk)
            except OSError as error:
                log.debug("stdin of a session takes no more: %s", error)
                wanted = None
    if source is not None and stdin is not None:
        stdin.close()


async def _follow_sizes(source: Source | None, session: Session) -> None:
    decoder = SizeDecoder()
    while source is not None and (chunk := await source.read()):
        for rows, columns in decoder.feed(chunk):
            try:
                await session.resize(rows, columns)
            except (StreamingError, OSError) as error:
                log.debug("terminal not resized: %s", error)
