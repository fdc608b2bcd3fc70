"""The connections of all pulls: what one of them waits for holds up neither the others nor the rest of the daemon."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web

from images.errors import RegistryError
from images.limits import Limits
from images.registry.hosts import Host
from images.registry.http import Http

LIMITS = Limits(document_seconds=30.0)


class Server:
    """Answers, but for /silent, of which `asked` counts the requests."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/silent":
            self.asked.release()
            await asyncio.sleep(60)
        return web.Response(body=b"answer")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made, application = Server(), web.Application()
    application.router.add_get("/{path}", made.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    made = Http(LIMITS)
    yield made
    await made.close()


async def test_names_are_looked_up_while_the_threads_of_the_event_loop_are_busy(http: Http, server: Server) -> None:
    loop, done = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = loop.run_in_executor(None, done.wait)
    try:
        url = f"http://localhost:{server.port}/x"
        asked = http.small("GET", url, {}, Host(url, None), limit=100)
        assert (await asyncio.wait_for(asked, 10)).body == b"answer"
    finally:
        done.set()
        await busy


async def test_servers_that_do_not_answer_leave_connections_for_others(http: Http, server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}"
    silent = [asyncio.create_task(http.small("GET", f"{url}/silent", {}, Host(url, None), limit=9)) for _ in range(100)]
    for _ in silent:
        await server.asked.acquire()
    asked = http.small("GET", f"{url}/x", {}, Host(url, None), limit=100)
    assert (await asyncio.wait_for(asked, 10)).body == b"answer"
    for task in silent:
        task.cancel()
    await asyncio.gather(*silent, return_exceptions=True)


async def test_a_name_that_nobody_knows(http: Http) -> None:
    with pytest.raises(RegistryError, match=r"cannot talk to registry\.invalid"):
        await http.small("GET", "http://registry.invalid/", {}, Host("http://registry.invalid", None), limit=9)
