"""HTTP as registries need it, over aiohttp: limits, deadlines, redirects that leak nothing, one kind of error.

Everything that aiohttp, ssl or the resolver can raise becomes RegistryError here. Compression of the transfer is
never asked for nor undone: a digest is that of the bytes as they are stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import yarl

from images.errors import RegistryError, TooLarge
from images.limits import Limits
from images.registry.hosts import Host
from images.registry.resolver import Resolver

REDIRECTS = 5
REDIRECTED = frozenset({301, 302, 303, 307, 308})
READ_BUFFER = 1 << 20
REASON_LIMIT = 4096
#: Connection failures, TLS among them, and answers that are no HTTP.
FAILURES = (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError, ValueError)


@dataclass(slots=True)
class Answer:
    """A response whose body is read already; `url` is where it came from, after redirects."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every header of this name."""
        getall = getattr(self.headers, "getall", None)
        return list(getall(name, [])) if getall else [self.headers[name]] if name in self.headers else []

    def reason(self) -> str:
        """What the registry says about a failure, as the end of a message (distribution-spec, "Error Codes")."""
        try:
            first = json.loads(self.body[:REASON_LIMIT])["errors"][0]
            text = f"{first.get('code', '')} {first.get('message', '')}".strip()
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return ""
        return f" ({text[:300]})" if text.isprintable() and text else ""


class Http:
    """One connection pool. Made inside a running event loop; close() it there.

    How many connections there are is the pulls' matter (images.transfer): a number here would let some that stall
    keep everybody else waiting.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=Resolver()),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": "nodeagent", "Accept-Encoding": "identity"},
            read_bufsize=READ_BUFFER,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def small(
        self, method: str, url: str, headers: Mapping[str, str], host: Host, *, limit: int, data: bytes | None = None
    ) -> Answer:
        """A whole exchange within the document deadline; raises TooLarge for a body over `limit` bytes."""
        with connection_errors(url):
            async with asyncio.timeout(self._limits.document_seconds):
                async with self.stream(method, url, headers, host, data=data) as response:
                    body = bytearray()
                    while chunk := await response.content.readany():
                        body += chunk
                        if len(body) > limit:
                            raise TooLarge(f"{urlsplit(url).netloc} sends more than the {limit} bytes allowed here")
                    return Answer(str(response.url), response.status, response.headers, bytes(body))

    @contextlib.asynccontextmanager
    async def stream(
        self, method: str, url: str, headers: Mapping[str, str], host: Host, *, data: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response to a request, after redirects; its body is still to be read. Raises RegistryError.

        `headers` are for the server of `url` alone: a redirect to another one gets only Range and Accept.
        """
        origin = urlsplit(url)
        for _ in range(REDIRECTS + 1):
            with connection_errors(url):
                sent = self._session.request(
                    method,
                    yarl.URL(url, encoded=True),
                    headers=headers if same_server(origin.geturl(), url) else _harmless(headers),
                    data=data,
                    allow_redirects=False,
                    ssl=host.tls or True,
                    proxy=host.proxy or _proxy_for(url),
                    timeout=self._timeout(host),
                )
                async with asyncio.timeout(self._limits.document_seconds):  # silence_seconds is between two bytes
                    response = await sent
            async with response:
                if response.status not in REDIRECTED or "Location" not in response.headers:
                    yield response
                    return
                if data is not None:
                    raise RegistryError(f"{origin.netloc} redirects a request with credentials in it", origin.netloc)
                url = _redirected(url, response.headers["Location"], host)
        raise RegistryError(f"{origin.netloc} redirects more than {REDIRECTS} times", origin.netloc)

    def _timeout(self, host: Host) -> aiohttp.ClientTimeout:
        connect = host.dial_timeout or self._limits.connect_seconds
        return aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=self._limits.silence_seconds)


async def pieces(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The body as it comes; raises RegistryError when it breaks off."""
    with connection_errors(str(response.url)):
        while chunk := await response.content.readany():
            yield chunk


@contextlib.contextmanager
def connection_errors(url: str) -> Iterator[None]:
    """Turn what aiohttp, ssl and sockets raise into RegistryError."""
    where = urlsplit(url).netloc
    try:
        yield
    except FAILURES as error:
        raise RegistryError(f"cannot talk to {where}: {_words(error)}", where) from error


def _words(error: BaseException) -> str:
    """The reason alone: aiohttp's own messages name the host again, and objects of its own."""
    cause: Any = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(cause, ConnectionError) and cause.errno:
        return os.strerror(cause.errno)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def same_server(one: str, other: str) -> bool:
    """Whether two URLs lead to one server, in the same way."""
    return urlsplit(one)[:2] == urlsplit(other)[:2]


def _harmless(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name in ("Range", "Accept")}


def _redirected(url: str, location: str, host: Host) -> str:
    """Where a redirect leads; raises RegistryError when that is no place to go to."""
    target = urljoin(url, location)
    scheme = urlsplit(target).scheme
    if scheme != "https" and (scheme != "http" or urlsplit(url).scheme == "https"):
        raise RegistryError(f"{urlsplit(url).netloc} redirects from https to {target[:200]!r}", host.name)
    return target


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL (HTTPS_PROXY, HTTP_PROXY, NO_PROXY); loopback has none."""
    parts = urlsplit(url)
    if parts.hostname in ("localhost", "127.0.0.1", "::1") or urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)
