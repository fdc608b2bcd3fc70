"""The shim's side of its connections with crid: requests in, replies and events out.

A connection that does not take what it is sent gets a queue, and when that is full it is cut: crid connects again and
asks what has happened, because everything that must not be lost is on disk before it is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from runtime.errors import InvalidSpec, to_doc
from runtime.linux.channel import Channel, accept
from runtime.linux.fds import Fd
from runtime.linux.messages import VERSION, Message, ProtocolError, encode
from runtime.shim.loop import WRITE, Loop

QUEUE_MAX: Final = 1024
BATCH: Final = 16
PAUSE_SECONDS: Final = 1.0


class Request:
    """One request and whoever waits for its reply; `fds` that the handler does not take are closed."""

    __slots__ = ("blob", "connection", "doc", "fds")

    def __init__(self, connection: Connection, message: Message) -> None:
        self.connection = connection
        self.doc = message.doc
        self.fds = list(map(Fd, message.fds))
        self.blob = message.blob

    def answer(self, fds: tuple[Fd, ...] = (), **fields: Any) -> None:
        """Reply; the fds are sent and closed."""
        self.connection.send({"re": self.doc.get("id", -1), **fields}, fds)

    def fail(self, error: Exception) -> None:
        """Reply with an error, which is raised on the other side."""
        self.connection.send({"re": self.doc.get("id", -1), "error": to_doc(error)})

    def fail_with(self, error: bytes) -> None:
        """The same with an error that another process has put into JSON."""
        self.connection.send_payload(b'{"v":%d,"re":%d,"error":%s}' % (VERSION, self.doc.get("id", -1), error))


Handler = Callable[[Request], None]


class Connection:
    """One connection: reads requests in batches, never waits for the other side."""

    __slots__ = ("_channel", "_queue", "_service")

    def __init__(self, service: Service, channel: Channel) -> None:
        self._service = service
        self._channel = channel
        self._queue: list[tuple[bytes, tuple[Fd, ...]]] = []  # seldom more than one; a deque is four more pages
        channel.setblocking(False)
        service.loop.watch(channel.fileno(), self._readable)

    @property
    def open(self) -> bool:
        """Whether the other side may still be there."""
        return self._channel.fileno() >= 0

    def send(self, doc: dict[str, Any], fds: tuple[Fd, ...] = ()) -> None:
        """Send now or as soon as there is room; the fds are closed afterwards."""
        self.send_payload(encode(doc), fds)

    def send_payload(self, payload: bytes, fds: tuple[Fd, ...] = ()) -> None:
        """The same with a message that is in bytes already."""
        self._queue.append((payload, fds))
        if len(self._queue) == 1:
            self._flush()
        elif len(self._queue) > QUEUE_MAX:
            self.close()

    def _flush(self) -> None:
        while self._queue and self.open:
            payload, fds = self._queue[0]
            try:
                self._channel.send_payload(payload, list(map(Fd.fileno, fds)))
            except BlockingIOError:
                return self._watch_for_room()
            except OSError:
                return self.close()
            self._queue.pop(0)
            _close(fds)
        if not self.open:
            self._drop_queue()

    def _watch_for_room(self) -> None:
        self._service.loop.unwatch(self._channel.fileno())
        self._service.loop.watch(self._channel.fileno(), self._writable, WRITE)

    def _writable(self) -> None:
        self._flush()
        if self.open and not self._queue:
            self._service.loop.unwatch(self._channel.fileno())
            self._service.loop.watch(self._channel.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            for _ in range(BATCH):
                message = self._channel.recv()
                if message is None:
                    return self.close()
                self._service.handle(Request(self, message))
                if not self.open:
                    return None
        except BlockingIOError:
            return None
        except (OSError, ProtocolError):
            self.close()

    def close(self) -> None:
        """Disconnect; the other side may come back."""
        if not self.open:
            return
        self._service.loop.unwatch(self._channel.fileno())
        self._channel.close()
        self._drop_queue()
        self._service.lost(self)

    def _drop_queue(self) -> None:
        while self._queue:
            _close(self._queue.pop(0)[1])


class Service:
    """All connections, the listening socket, and the handlers by the name of the operation."""

    __slots__ = ("_connections", "_handlers", "_listener", "_on_lost", "loop")

    def __init__(self, loop: Loop, handlers: dict[str, Handler], on_lost: Callable[[Connection], None]) -> None:
        self.loop = loop
        self._handlers = handlers
        self._connections: list[Connection] = []
        self._listener = -1
        self._on_lost = on_lost

    def listen(self, listener: int) -> None:
        """Accept connections of a listening fd, which is owned from now on."""
        self._listener = listener
        self.loop.watch(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            self.adopt(accept(self._listener))
        except BlockingIOError:  # the other side has gone meanwhile
            pass
        except OSError:  # no fd is free; it waits, and would be tried without end
            self.loop.unwatch(self._listener)
            self.loop.call_later(PAUSE_SECONDS, self._listen_again)

    def _listen_again(self) -> None:
        self.loop.watch(self._listener, self._accept)

    def adopt(self, channel: Channel) -> Connection:
        """Serve a connection that exists already."""
        connection = Connection(self, channel)
        self._connections.append(connection)
        return connection

    def lost(self, connection: Connection) -> None:
        """A connection is closed."""
        self._connections.remove(connection)
        self._on_lost(connection)

    def handle(self, request: Request) -> None:
        """Run the request's handler; what it raises is the reply."""
        try:
            handler = self._handlers.get(request.doc.get("op", ""))
            if handler is None:
                raise InvalidSpec(f"this shim does not know the operation {request.doc.get('op')!r}")
            handler(request)
        except Exception as error:  # noqa: BLE001 - the one boundary between a request and the loop
            request.fail(error)
        finally:
            _close(request.fds)

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to everybody who is connected."""
        for connection in list(self._connections):
            connection.send(event)


def _close(fds: tuple[Fd, ...] | list[Fd]) -> None:
    for fd in fds:
        fd.close()
