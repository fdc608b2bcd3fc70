"""Container events: what happened, with the whole pod as it was right after, to whoever listens.

There is no resume token in the interface, so a listener that cannot keep up is told that it has lost events and must
list again; it never gets a stream with silent gaps, and never costs more than its bounded queue.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator

from cri.proto import api_pb2 as api
from cri.server.errors import Exhausted
from cri.server.pods import Sandbox
from cri.server.statuses import container_statuses, sandbox_status

QUEUE_LIMIT = 4096
#: Of all that waits for one listener: an event carries its whole pod, annotations and all.
QUEUE_BYTES = 32 << 20


class _Listener:
    """The queue of one stream."""

    def __init__(self) -> None:
        self.queue: deque[tuple[api.ContainerEventResponse, int]] = deque()
        self.waiting = 0
        self.wake = asyncio.Event()
        self.lost = False

    def put(self, event: api.ContainerEventResponse, size: int) -> None:
        if self.lost:
            return  # what came after a gap would hide it, also when there is room again
        if len(self.queue) >= QUEUE_LIMIT or (self.queue and self.waiting + size > QUEUE_BYTES):
            self.lost = True
        else:
            self.queue.append((event, size))
            self.waiting += size
        self.wake.set()

    def take(self) -> api.ContainerEventResponse:
        event, size = self.queue.popleft()
        self.waiting -= size
        return event


class Events:
    """Fans events out; costs nothing while nobody listens."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()
        self._closed = False

    def close(self) -> None:
        """End all streams; for the stop of the daemon."""
        self._closed = True
        for listener in self._listeners:
            listener.wake.set()

    def publish(self, kind: api.ContainerEventType, id: str, sandbox: Sandbox) -> None:
        """Tell all listeners about a container, or about the sandbox itself when `id` is its id."""
        if not self._listeners:
            return
        event = api.ContainerEventResponse(
            container_id=id,
            container_event_type=kind,
            created_at=time.time_ns(),
            pod_sandbox_status=sandbox_status(sandbox),
            containers_statuses=container_statuses(sandbox),
        )
        size = event.ByteSize()
        for listener in self._listeners:
            listener.put(event, size)

    async def listen(self) -> AsyncIterator[api.ContainerEventResponse]:
        """Events from now on, until the caller leaves; raises Exhausted once some were lost."""
        listener = _Listener()
        self._listeners.add(listener)
        try:
            while True:
                while listener.queue:
                    yield listener.take()
                if self._closed:
                    return
                if listener.lost:
                    raise Exhausted(
                        f"more than {QUEUE_LIMIT} events, or {QUEUE_BYTES >> 20} MiB of them, waited to be read "
                        "and some are lost; list and listen again"
                    )
                listener.wake.clear()
                await listener.wake.wait()
        finally:
            self._listeners.discard(listener)
