"""One plugin: registered, configured, synchronized, called for the events that it wants, and closed for its failures.

    connected --RegisterPlugin--> named --Configure--> events known --Synchronize--> called, until it is closed

Calls reach a plugin one at a time, as with the published runtime side: plugins are written for that. What a call that
is not answered leads to is the plugin's own choice (FailurePolicy): it is closed unless it asked to be kept after a
timeout, and the request goes on without it unless it asked that the request fail.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from cri.proto import nri_pb2 as nri
from cri.server.nri.calls import ALL_EVENTS, CALLS
from cri.server.nri.connection import Connection, Served
from cri.server.nri.errors import NriFault, PluginLost, PluginRefused, PluginTimeout
from cri.server.nri.ttrpc import DATA_MAX, UNIMPLEMENTED, UNKNOWN

log = logging.getLogger("crid")

API_VERSION: Final = "v0.12.5"
_INDEX: Final = re.compile(r"[0-9]{2}")
_NAME: Final = re.compile(r"[A-Za-z0-9_.+-]{1,128}")
#: Of a message's 4 MiB, what objects may take: the envelope and the other fields need little.
SYNC_BYTES: Final = DATA_MAX - 4096

Updates = Sequence[nri.ContainerUpdate]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plugin is told of the runtime; timeouts in seconds."""

    runtime: str
    version: str
    registration_timeout: float
    request_timeout: float


UpdateContainers = Callable[["Plugin", nri.UpdateContainersRequest], Coroutine[Any, Any, nri.UpdateContainersResponse]]


class Plugin:
    """A plugin's connection and what is known of it. A launched one has its name from its file, others tell it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        terms: Terms,
        update: UpdateContainers,
        *,
        index: str = "",
        base: str = "",
        config: str = "",
    ) -> None:
        self.index, self.base, self.config = index, base, config
        self.events = 0
        self._launched = bool(index)
        self._terms = terms
        self._update = update
        self._policy = nri.FailurePolicy()
        self._old: set[int] = set()
        self._turn = asyncio.Lock()
        self._silent_at = 0.0
        self._registered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        served = {
            "RegisterPlugin": Served(nri.RegisterPluginRequest, self._register),
            "UpdateContainers": Served(nri.UpdateContainersRequest, self._update_containers),
        }
        self.connection = Connection(reader, writer, served)

    @property
    def name(self) -> str:
        """index-name, as messages have it."""
        return f"{self.index}-{self.base}" if self.index else f"of process {self.connection.pid}"

    @property
    def closed(self) -> bool:
        return self.connection.ended.done()

    def wants(self, event: int) -> bool:
        return not self.closed and bool(self.events >> (event - 1) & 1)

    async def close(self, why: str) -> None:
        """Disconnect it."""
        await self.connection.close(why)

    async def begin(self) -> None:
        """Await its registration and configure it. Raises PluginLost, PluginRefused; the caller closes it then."""
        self.connection.open()
        timeout = self._terms.registration_timeout
        done, _ = await asyncio.wait(
            (self._registered, self.connection.ended), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            raise PluginTimeout(f"it did not register within {timeout:g} s")
        if not self._registered.done():
            raise PluginLost(self.connection.ended.result())
        self._registered.result()
        await self._configure()

    async def _register(self, request: Any) -> Message:
        if self._registered.done():
            raise PluginRefused(UNKNOWN, "this connection has registered a plugin before")
        if not self._launched:
            index, base = request.plugin_idx, request.plugin_name
            if not _INDEX.fullmatch(index) or not _NAME.fullmatch(base):
                what = f"index {index[:20]!r} and name {base[:80]!r} are not two digits and a plain name"
                self._registered.set_exception(PluginRefused(UNKNOWN, what))
                raise PluginRefused(UNKNOWN, what)
            self.index, self.base = index, base
        self._registered.set_result(None)
        return nri.Empty()

    async def _configure(self) -> None:
        terms = self._terms
        request = nri.ConfigureRequest(
            config=self.config,
            runtime_name=terms.runtime,
            runtime_version=terms.version,
            registration_timeout=round(terms.registration_timeout * 1000),
            request_timeout=round(terms.request_timeout * 1000),
            NRI_version=API_VERSION,
        )
        response = await self.connection.call("Configure", request, nri.ConfigureResponse, terms.request_timeout)
        if response.events & ~ALL_EVENTS:
            raise PluginLost(f"it asks for events {response.events:#x}, some of which do not exist")
        self.events = response.events or ALL_EVENTS
        self._policy = response.failure_policy

    async def _update_containers(self, request: Any) -> Message:
        return await self._update(self, request)

    async def synchronize(self, pods: Sequence[nri.PodSandbox], containers: Sequence[nri.Container]) -> Updates:
        """Tell it what there is; returns the updates that it asks for. Raises PluginLost, PluginRefused.

        Whoever calls it after this was begun waits for its end: the plugin knows the pods of its events.
        """
        async with self._turn:
            for request in _chunks(pods, containers):
                response = await self.connection.call(
                    "Synchronize", request, nri.SynchronizeResponse, self._terms.request_timeout
                )
                if request.more and (response.update or not response.more):
                    raise PluginLost(f"it cannot take the {len(pods)} pods of this node in more than one message")
            return response.update

    async def relay(self, event: int, request: Any) -> Any:
        """The plugin's response; None when it did not ask for the event, or gave none and is not needed.

        Raises NriFault when the plugin refuses, or when it fails and has asked for that.
        """
        if not self.wants(event):
            return None
        method = CALLS[event].method
        try:
            return await self._in_turn(event, request)
        except PluginRefused as error:
            raise NriFault(f"NRI plugin {self.name} refuses {method}: {error}") from error
        except PluginLost as error:
            if self._policy.fail_request:
                raise NriFault(f"NRI plugin {self.name} failed at {method}: {error}") from error
            return None

    async def validate(self, request: nri.ValidateContainerAdjustmentRequest) -> None:
        """Raises NriFault unless the plugin agrees: a validator that does not answer agrees to nothing."""
        try:
            response = await self._in_turn(nri.VALIDATE_CONTAINER_ADJUSTMENT, request)
        except (PluginRefused, PluginLost) as error:
            raise NriFault(f"NRI validator {self.name} failed: {error}") from error
        if response is None:
            raise NriFault(f"NRI validator {self.name} is gone")
        if response.reject:
            raise NriFault(f"NRI validator {self.name} rejects it: {response.reason[:2000] or 'no reason given'}")

    async def _in_turn(self, event: int, request: Any) -> Any:
        """The response, or None when the plugin went while we waited for our turn. Raises PluginRefused, PluginLost.

        Whoever waits while another call runs out of time shares its outcome: a plugin that hangs and is kept delays
        each request by one timeout, and not the last of many by the sum of all.
        """
        asked = _now()
        async with self._turn:
            if self.closed:
                return None
            if asked <= self._silent_at:
                raise PluginTimeout("it was asked before, and did not answer in time")
            try:
                return await self._call(event, request)
            except PluginLost as error:
                await self._failed(CALLS[event].method, error)
                raise

    async def _failed(self, method: str, error: PluginLost) -> None:
        self._silent_at = _now()
        kept = isinstance(error, PluginTimeout) and self._policy.keep_connected
        log.error("NRI plugin %s failed at %s%s: %s", self.name, method, "" if kept else ", it is closed", error)
        if not kept:
            await self.close(f"it failed at {method}: {error}")

    async def _call(self, event: int, request: Any) -> Any:
        call, timeout = CALLS[event], self._terms.request_timeout
        if event not in self._old:
            try:
                return await self.connection.call(call.method, request, call.response, timeout)
            except PluginRefused as error:
                if error.code != UNIMPLEMENTED or not call.old:
                    raise
            self._old.add(event)
            log.warning("NRI plugin %s is told of %s by StateChange: it is older than v0.11", self.name, call.method)
        change = nri.StateChangeEvent(event=nri.Event.Name(nri.Event.ValueType(event)), pod=request.pod)
        if "container" in request.DESCRIPTOR.fields_by_name:
            change.container.CopyFrom(request.container)
        return await self.connection.call("StateChange", change, nri.Empty, timeout)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _chunks(pods: Sequence[nri.PodSandbox], containers: Sequence[nri.Container]) -> Iterator[nri.SynchronizeRequest]:
    """One message where all fits into one, as plugins of old expect; else as few as it takes."""
    request, size = nri.SynchronizeRequest(), 0
    for field, items in (("pods", pods), ("containers", containers)):
        for item in items:
            weight = item.ByteSize() + 8
            if size and size + weight > SYNC_BYTES:
                request.more = True
                yield request
                request, size = nri.SynchronizeRequest(), 0
            getattr(request, field).append(item)
            size += weight
    yield request
