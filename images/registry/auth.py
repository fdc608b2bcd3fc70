"""Credentials, and what becomes of them: Basic, or a token from the service that a registry names.

Facts: the distribution project's docs on token authentication (/docs/spec/auth). A password goes to the registry
that asked for Basic, or to the token service that it names, over HTTPS if the registry is itself reached so; the
token goes to that registry only. Nothing is sent before it is asked for, nothing follows a redirect elsewhere, and
who is redirected to may ask in vain (the way in of CVE-2020-15157).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from images.errors import RegistryError, Unauthorized
from images.registry.challenge import Challenge, parse_challenges
from images.registry.credentials import Auth
from images.registry.hosts import Host
from images.registry.http import Answer, Http, same_server

TOKEN_LIMIT = 1 << 20
#: What the specification lets a client assume of a token that does not say how long it lives; in seconds.
DEFAULT_LIFE = 60.0
CLIENT_ID = "nodeagent"


class Authorizer:
    """The Authorization headers of one pull, by server; it lives as long as the pull does."""

    def __init__(self, http: Http, auth: Auth | None, repository: str) -> None:
        self._http = http
        self._auth = auth or Auth()
        self._scope = f"repository:{repository}:pull"
        self._headers: dict[str, tuple[str, float]] = {}

    def header(self, host: Host) -> dict[str, str]:
        """What to send along with a request; empty as long as the server has not asked."""
        value, expires = self._headers.get(host.name, ("", 0.0))
        return {"Authorization": value} if value and time.monotonic() < expires else {}

    async def answer(self, host: Host, refused: Answer, shown: Mapping[str, str]) -> bool:
        """Prepare what a 401 asks for; False when just that was `shown`, or when it is not the host who asks.

        Raises Unauthorized, RegistryError.
        """
        if not same_server(refused.url, host.base):
            return False
        if self.header(host) not in ({}, shown):
            return True  # another request of this pull has been through this meanwhile
        self._headers.pop(host.name, None)
        challenges = {challenge.scheme: challenge for challenge in parse_challenges(refused.all("WWW-Authenticate"))}
        auth = self._auth if self._auth.fits(host) else Auth()
        if auth.registry_token:
            self._headers[host.name] = (f"Bearer {auth.registry_token}", float("inf"))
        elif "bearer" in challenges:
            self._headers[host.name] = await self._token(host, challenges["bearer"], auth)
        elif "basic" in challenges and auth.username:
            self._headers[host.name] = (auth.basic, float("inf"))
        else:
            return False
        return self.header(host) != shown

    async def _token(self, host: Host, challenge: Challenge, auth: Auth) -> tuple[str, float]:
        realm = challenge.parameters.get("realm", "")
        scheme = urlsplit(realm).scheme
        if scheme != "https" and (scheme != "http" or host.tls is not None):
            raise RegistryError(f"{host.name} sends us to {realm[:200]!r} for a token: not https", host.name)
        query = {"scope": challenge.parameters.get("scope", self._scope)}
        if "service" in challenge.parameters:
            query["service"] = challenge.parameters["service"]
        document = await self._ask(host, realm, query, auth)
        token = document.get("access_token") if auth.identity_token else document.get("token")
        token = token or document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token or not token.isprintable():
            raise RegistryError(f"{urlsplit(realm).netloc} gave no token for {host.name}", host.name)
        life = document.get("expires_in")
        life = float(life) if isinstance(life, int | float) and life > 0 else DEFAULT_LIFE
        return f"Bearer {token}", time.monotonic() + life * 0.9

    async def _ask(self, host: Host, realm: str, query: Mapping[str, str], auth: Auth) -> dict[str, Any]:
        """GET with Basic, or OAuth2's POST where there is an identity token to exchange."""
        if auth.identity_token:
            form = {
                **query,
                "grant_type": "refresh_token",
                "client_id": CLIENT_ID,
                "refresh_token": auth.identity_token,
            }
            body = urlencode(form).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = await self._http.small("POST", realm, headers, host, limit=TOKEN_LIMIT, data=body)
        else:
            headers = {"Authorization": auth.basic} if auth.username else {}
            url = f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(query)}"
            answer = await self._http.small("GET", url, headers, host, limit=TOKEN_LIMIT)
        where = urlsplit(realm).netloc
        if answer.status in (401, 403):
            raise Unauthorized(
                f"{where} refuses the credentials for {host.name}{answer.reason()}", where, answer.status
            )
        if answer.status != 200:
            raise RegistryError(f"{where} gave no token: HTTP {answer.status}{answer.reason()}", where, answer.status)
        try:
            document = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"{where} gave no token, but something that is not JSON", where) from error
        return document if isinstance(document, dict) else {}
