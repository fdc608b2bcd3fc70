"""The HTTP/1.1 part of a session: one request, answered by an upgrade or by a refusal. The parsing is h11's.

There is no keep-alive and no redirect: a redirect of an exec is a known way to make a proxy send its credentials to
another host (CVE-2020-8559).
"""

from __future__ import annotations

import http
from collections.abc import Sequence
from dataclasses import dataclass

import h11

from cri.server.streaming.wire import Connection

MAX_HEAD = 16 << 10  # bytes of request line and headers


class Refusal(Exception):
    """Ends the request with an HTTP status and one line of text."""

    def __init__(self, status: int, text: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(f"{status} {text}")
        self.status = status
        self.text = text
        self.headers = list(headers)


@dataclass(frozen=True, slots=True)
class Request:
    """`headers` have lower-case names, in the order of the request."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("ascii", "replace")

    def values(self, name: bytes) -> list[str]:
        """All values of a header, also where one line holds several, separated by commas."""
        lines = [value.decode("latin-1") for found, value in self.headers if found == name]
        return [value.strip() for line in lines for value in line.split(",") if value.strip()]

    def wants(self, protocol: str) -> bool:
        """Whether it asks for an upgrade to the protocol."""
        upgrades = [value.lower() for value in self.values(b"upgrade")]
        connection = [value.lower() for value in self.values(b"connection")]
        return "upgrade" in connection and protocol.lower() in upgrades


class Exchange:
    """One request on a fresh connection, and its answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    async def request(self) -> Request:
        """Read the request's head. Raises Refusal, ConnectionError when the client leaves first."""
        try:
            head = await self._next()
            while not isinstance(head, h11.Request):
                head = await self._next()
            while not isinstance(event := await self._next(), h11.EndOfMessage):
                if isinstance(event, h11.Data):
                    raise Refusal(413, "the request takes no body")
        except h11.RemoteProtocolError as error:
            raise Refusal(error.error_status_hint, f"not an HTTP/1.1 request: {error}") from error
        # A client may not wait for the answer before it speaks the new protocol.
        self._connection.unread(self._http.trailing_data[0])
        return Request(head.method.decode(), head.target, list(head.headers))

    async def switch(self, protocol: str, headers: Sequence[tuple[str, str]]) -> None:
        """Answers 101: from here on the connection speaks `protocol`."""
        upgrade = [("Connection", "Upgrade"), ("Upgrade", protocol), *headers]
        answer = h11.InformationalResponse(status_code=101, headers=upgrade, reason=b"Switching Protocols")
        await self._connection.write(self._http.send(answer) or b"")

    async def refuse(self, refusal: Refusal) -> None:
        body = refusal.text.encode() + b"\n"
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *refusal.headers,
        ]
        reason = http.HTTPStatus(refusal.status).phrase.encode()
        answer = h11.Response(status_code=refusal.status, headers=headers, reason=reason)
        sent = [self._http.send(part) or b"" for part in (answer, h11.Data(data=body), h11.EndOfMessage())]
        await self._connection.write(b"".join(sent))

    async def _next(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = await self._connection.read()
            if not data:
                raise ConnectionResetError("the client left before its request was complete")
            self._http.receive_data(data)
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise Refusal(400, "no request")
        assert isinstance(event, h11.Event)
        return event
