"""A registry that misbehaves on demand: a proxy before a real one, in the test's own event loop.

    async with FaultyRegistry(registry) as faulty:
        faulty.add("/blobs/", cut(after=1000, times=2))
        await store.pull(f"{faulty.host}/demo:1")

A fault applies to requests whose path contains its text, as often as `times` says. `faulty.requests` is what came.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import aiohttp
from aiohttp import web

from tests.support.registry import PASSWORD, USER, Registry

Fault = Callable[[web.Request, aiohttp.ClientResponse], Awaitable[web.StreamResponse]]
FOREVER = 1 << 30


@dataclass(slots=True)
class _Rule:
    part: str
    fault: Fault
    times: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came."""

    path: str
    headers: dict[str, str] = field(repr=False)

    @property
    def authorization(self) -> str:
        return self.headers.get("Authorization", "")


class FaultyRegistry:
    """`bearer` demands tokens, which it issues itself to USER with PASSWORD (or to anybody, if `anonymous`)."""

    def __init__(
        self, upstream: Registry, *, bearer: bool = False, anonymous: bool = False, token_life: int = 300
    ) -> None:
        self._upstream = upstream
        self._bearer = bearer
        self._anonymous = anonymous
        self._token_life = token_life
        self._rules: list[_Rule] = []
        self._tokens: list[str] = []
        self.requests: list[Seen] = []
        self.host = ""
        self._arrived = asyncio.Condition()

    async def __aenter__(self) -> FaultyRegistry:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, auto_decompress=False, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.host = f"127.0.0.1:{self._runner.addresses[0][1]}"
        self._client = aiohttp.ClientSession(auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._client.close()
        await self._runner.cleanup()

    def add(self, part: str, fault: Fault, times: int = FOREVER) -> None:
        """Misbehave this way, `times` times, wherever `part` is in the path; the first rule that fits counts."""
        self._rules.append(_Rule(part, fault, times))

    def heal(self) -> None:
        """Misbehave no more."""
        self._rules.clear()

    async def until_asked(self, part: str) -> None:
        """Wait for a request with this in its path."""
        async with self._arrived:
            await asyncio.wait_for(self._arrived.wait_for(lambda: self.asked(part)), 20)

    def revoke_tokens(self) -> None:
        """Forget every token given so far."""
        self._tokens.clear()

    def asked(self, part: str) -> list[Seen]:
        """The requests with this in their path."""
        return [seen for seen in self.requests if part in seen.path]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        async with self._arrived:
            self.requests.append(Seen(request.path_qs, dict(request.headers)))
            self._arrived.notify_all()
        if request.path == "/token":
            return self._exchanged(await request.post()) if request.method == "POST" else self._token(request)
        if self._bearer and request.headers.get("Authorization", "").removeprefix("Bearer ") not in self._tokens:
            scope = "repository:{}:pull".format(
                request.path.removeprefix("/v2/").split("/manifests/")[0].split("/blobs/")[0]
            )
            challenge = f'Bearer realm="http://{self.host}/token",service="tests",scope="{scope}"'
            return web.json_response({"errors": [{"code": "UNAUTHORIZED", "message": "token wanted"}]}, status=401,
                                     headers={"WWW-Authenticate": challenge})  # fmt: skip
        headers = {
            name: value for name, value in request.headers.items() if name in ("Range", "Accept", "Authorization")
        }
        if self._bearer:
            headers.pop("Authorization", None)
        url = f"http://{self._upstream.host}{request.path_qs}"
        async with self._client.request(request.method, url, headers=headers) as upstream:
            return await self._fault(request.path_qs)(request, upstream)

    def _fault(self, path: str) -> Fault:
        for rule in self._rules:
            if rule.times and rule.part in path:
                rule.times -= 1
                return rule.fault
        return passed_on

    def _exchanged(self, form: Mapping[str, object]) -> web.Response:
        """OAuth2's way: an identity token, here PASSWORD, for an access token."""
        if (form.get("grant_type"), form.get("refresh_token")) != ("refresh_token", PASSWORD):
            return web.json_response({"error": "invalid_grant"}, status=401)
        self._tokens.append(f"access-{secrets.token_hex(4)}-{form.get('scope')}")
        return web.json_response({"access_token": self._tokens[-1], "expires_in": self._token_life})

    def _token(self, request: web.Request) -> web.Response:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if not self._anonymous and request.headers.get("Authorization") != expected:
            return web.json_response({"errors": [{"code": "DENIED", "message": "who are you"}]}, status=401)
        self._tokens.append(f"token-{secrets.token_hex(4)}-{request.query.get('scope')}")
        return web.json_response({"token": self._tokens[-1], "expires_in": self._token_life})


async def passed_on(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    """No fault."""
    response = await _begun(request, upstream)
    async for piece in _pieces(upstream):
        await response.write(piece)
    return response


def status(code: int, **headers: str) -> Fault:
    """Answer with this status instead."""

    async def fault(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        body = {"errors": [{"code": "INJECTED", "message": f"you get {code}"}]}
        return web.json_response(body, status=code, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return fault


def cut(after: int) -> Fault:
    """Close the connection after so many bytes of the body."""

    async def fault(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        response = await _begun(request, upstream)
        await response.write((await upstream.read())[:after])
        assert request.transport is not None
        request.transport.close()
        return response

    return fault


def stall(after: int, seconds: float = 60) -> Fault:
    """Send so many bytes, then nothing, and keep the connection."""

    async def fault(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        response = await _begun(request, upstream)
        await response.write((await upstream.read())[:after])
        await asyncio.sleep(seconds)
        return response

    return fault


def changed(change: Callable[[bytes], bytes]) -> Fault:
    """Send something else, with a length that fits it."""

    async def fault(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        headers = {"Content-Type": upstream.headers.get("Content-Type", "")}
        return web.Response(body=change(await upstream.read()), status=upstream.status, headers=headers)

    return fault


def without_ranges(after: int | None = None) -> Fault:
    """Answer 200 with everything, whatever range was asked for; break off after so many bytes if that is given."""

    async def fault(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        async with aiohttp.ClientSession() as client, client.get(upstream.url) as whole:
            return await (passed_on if after is None else cut(after))(request, whole)

    return fault


async def _begun(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    kept = ("Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest", "WWW-Authenticate")
    response = web.StreamResponse(
        status=upstream.status, headers={name: upstream.headers[name] for name in kept if name in upstream.headers}
    )
    await response.prepare(request)
    return response


async def _pieces(upstream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for piece in upstream.content.iter_chunked(1 << 18):
        yield piece
