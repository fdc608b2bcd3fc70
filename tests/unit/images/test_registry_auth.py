"""Where a password goes: to nobody without TLS whom a registry with TLS names."""

from __future__ import annotations

import ssl
from typing import Any, cast

import pytest

from images.errors import RegistryError
from images.registry.auth import Authorizer
from images.registry.credentials import Auth
from images.registry.hosts import Host
from images.registry.http import Answer, Http

HOST = "https://registry.example/v2"


class Recorder:
    """An HTTP client that asks nobody."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def small(self, method: str, url: str, headers: dict[str, str], host: Host, **more: Any) -> Answer:
        self.asked.append((url, headers))
        return Answer(url, 200, {}, b'{"token": "t"}')


@pytest.mark.parametrize("realm", ["http://thief.example/token", "HTTP://thief.example/", "file:///etc/passwd", ""])
async def test_a_token_service_without_tls_gets_no_password(realm: str) -> None:
    """CVE-2019-10214."""
    http = Recorder()
    authorizer = Authorizer(cast(Http, http), Auth("user", "password"), "library/app")
    host = Host(HOST, ssl.create_default_context())
    refused = Answer(HOST, 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}, b"")
    with pytest.raises(RegistryError, match="not https"):
        await authorizer.answer(host, refused, {})
    assert http.asked == []


async def test_a_token_service_with_tls_gets_it() -> None:
    http = Recorder()
    authorizer = Authorizer(cast(Http, http), Auth("user", "password"), "library/app")
    host = Host(HOST, ssl.create_default_context())
    refused = Answer(HOST, 401, {"WWW-Authenticate": 'Bearer realm="https://auth.example/token"'}, b"")
    assert await authorizer.answer(host, refused, {})
    [(url, headers)] = http.asked
    assert url.startswith("https://auth.example/token?") and headers["Authorization"].startswith("Basic ")
