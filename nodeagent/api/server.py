"""HTTP over a unix socket: GET /pods, /pods/{namespace}/{name}, /events, /problems, /healthz.

    curl --unix-socket /run/nodeagent/agent.sock http://agent/pods

Answers are JSON; pods are v1.Pod with their status, as an API server would show them. Nothing can be changed here:
what is wanted is said by manifests alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from nodeagent.manifests.catalogue import FileProblem
from nodeagent.pods.pod import Key
from nodeagent.sync.journal import Journal

#: Seconds that a caller of /events may wait for news.
LONGEST_WAIT = 60.0


class Source(Protocol):
    """What the agent lets be seen."""

    @property
    def journal(self) -> Journal: ...
    def documents(self) -> Iterable[dict[str, Any]]:
        """Every pod, as a v1.Pod with status."""
        ...

    def problems(self) -> Iterable[FileProblem]: ...
    def health(self) -> dict[str, Any]:
        """`healthy` and what there is to say about it."""
        ...


class StatusApi:
    """Serves `source` on the socket `path`, mode 0600."""

    def __init__(self, source: Source, path: Path) -> None:
        self._source = source
        self._path = path
        self._runner = web.AppRunner(self._application(), access_log=None, handle_signals=False)

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=1 << 16)
        application.router.add_get("/pods", self._pods)
        application.router.add_get("/pods/{namespace}/{name}", self._pod)
        application.router.add_get("/events", self._events)
        application.router.add_get("/problems", self._problems)
        application.router.add_get("/healthz", self._health)
        return application

    async def start(self) -> None:
        """Raises OSError."""
        self._path.unlink(missing_ok=True)
        await self._runner.setup()
        former = os.umask(0o177)
        try:
            await web.UnixSite(self._runner, str(self._path)).start()
        finally:
            os.umask(former)

    async def close(self) -> None:
        await self._runner.cleanup()
        self._path.unlink(missing_ok=True)

    async def _pods(self, request: web.Request) -> web.Response:
        items = sorted(self._source.documents(), key=lambda each: tuple(_key(each)))
        return _json({"apiVersion": "v1", "kind": "PodList", "items": items})

    async def _pod(self, request: web.Request) -> web.Response:
        wanted = Key(request.match_info["namespace"], request.match_info["name"])
        for document in self._source.documents():
            if _key(document) == wanted:
                return _json(document)
        return _json({"message": f"no pod {wanted} on this node"}, 404)

    async def _events(self, request: web.Request) -> web.Response:
        """?since=NUMBER: only what changed after it. &wait=SECONDS: wait for news."""
        try:
            since = int(request.query.get("since", "0"))
            wait = min(float(request.query.get("wait", "0")), LONGEST_WAIT)
        except ValueError:
            return _json({"message": "since must be a whole number and wait a number of seconds"}, 400)
        entries = await self._source.journal.wait(since, wait) if wait > 0 else self._source.journal.since(since)
        return _json({"items": [entry.to_json() for entry in entries]})

    async def _problems(self, request: web.Request) -> web.Response:
        return _json({"items": [dataclasses.asdict(problem) for problem in self._source.problems()]})

    async def _health(self, request: web.Request) -> web.Response:
        health = self._source.health()
        return _json(health, 200 if health["healthy"] else 503)


def _key(document: dict[str, Any]) -> Key:
    return Key(document["metadata"]["namespace"], document["metadata"]["name"])


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(value, indent=1) + "\n", status=status, content_type="application/json")
