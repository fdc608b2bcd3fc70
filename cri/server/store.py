"""What crid knows: an index of sandboxes and containers, each change written to the records before it counts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Generic, Protocol, TypeVar

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest, NotFound
from cri.server.pods import Container, Sandbox
from runtime.linux.database import DatabaseError
from runtime.linux.records import Records

log = logging.getLogger("crid")

SANDBOX, CONTAINER, CONTAINER_STATE = "sandbox", "container", "container.state"

SandboxKey = tuple[str, str, str, int]


def sandbox_key(metadata: api.PodSandboxMetadata) -> SandboxKey:
    """What no two sandboxes have in common."""
    return metadata.namespace, metadata.name, metadata.uid, metadata.attempt


class _Identified(Protocol):
    id: str
    lock: asyncio.Lock


T = TypeVar("T", bound=_Identified)


class Index(Generic[T]):
    """Objects by id, found by a unique prefix too, because people type no 64 digits."""

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._by_id: dict[str, T] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, item: T) -> bool:
        return self._by_id.get(item.id) is item

    def add(self, item: T) -> None:
        self._by_id[item.id] = item

    def discard(self, id: str) -> None:
        self._by_id.pop(id, None)

    def find(self, id: str) -> T | None:
        """The object, or None. Raises InvalidRequest for an empty id or a prefix of several."""
        if (exact := self._by_id.get(id)) is not None:
            return exact
        if not id:
            raise InvalidRequest(f"the request names no {self._noun} id")
        matches = [item for key, item in self._by_id.items() if key.startswith(id)]
        if len(matches) > 1:
            raise InvalidRequest(
                f"{self._noun} id {id!r} is ambiguous: {len(matches)} ids begin with it; give more digits"
            )
        return matches[0] if matches else None

    def get(self, id: str) -> T:
        """The object; raises NotFound."""
        if (found := self.find(id)) is None:
            raise NotFound(f"no {self._noun} {id[:80]!r} here")
        return found

    @contextlib.asynccontextmanager
    async def held(self, item: T) -> AsyncIterator[None]:
        """Hold an object's lock; raises NotFound when it was removed while we waited: its records are gone for good."""
        async with item.lock:
            if item not in self:
                raise NotFound(f"{self._noun} {item.id[:13]} was removed meanwhile")
            yield


class Store:
    """The index and its records; every method that changes something has reached the file when it returns."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.sandboxes: Index[Sandbox] = Index("pod sandbox")
        self.containers: Index[Container] = Index("container")
        #: Ids of those whose records cannot be read, by this version at least: what they have is left alone.
        self.unread: frozenset[str] = frozenset()
        self._by_name: dict[SandboxKey, Sandbox] = {}

    def named_sandbox(self, key: SandboxKey) -> Sandbox | None:
        return self._by_name.get(key)

    def save_sandbox(self, sandbox: Sandbox) -> None:
        self._records.put(SANDBOX, sandbox.id, sandbox.to_record())
        self._enter(sandbox)

    def _enter(self, sandbox: Sandbox) -> None:
        self.sandboxes.add(sandbox)
        self._by_name[sandbox_key(sandbox.config.metadata)] = sandbox

    def forget_sandbox(self, sandbox: Sandbox) -> None:
        self._records.delete(SANDBOX, sandbox.id)
        self.sandboxes.discard(sandbox.id)
        if self.named_sandbox(key := sandbox_key(sandbox.config.metadata)) is sandbox:
            del self._by_name[key]

    def add_container(self, container: Container) -> None:
        self._records.put(CONTAINER, container.id, container.to_record())
        container.sandbox.containers[container.id] = container
        self.containers.add(container)

    def save_spec(self, container: Container) -> None:
        """For the rare change of what never changes: new limits before the start."""
        self._records.put(CONTAINER, container.id, container.to_record())

    def save_state(self, container: Container) -> None:
        self._records.put(CONTAINER_STATE, container.id, container.to_state_record())

    def save_end(self, ended: Sandbox | Container) -> None:
        """Write down that something has ended, if that is possible: whoever waits for the end is told in any case.

        A restart finds it out again, from the shim or from its absence.
        """
        try:
            if isinstance(ended, Sandbox):
                self.save_sandbox(ended)
            else:
                self.save_state(ended)
        except DatabaseError as error:
            log.error("the end of %s (%s) is not written down: %s", ended.id[:13], ended.name, error)

    def forget_container(self, container: Container) -> None:
        self._records.delete(CONTAINER_STATE, container.id)
        self._records.delete(CONTAINER, container.id)
        container.sandbox.containers.pop(container.id, None)
        self.containers.discard(container.id)

    def load(self) -> list[str]:
        """Fill the index from the records; returns a line for each record that cannot be read, which stays on disk."""
        broken = {}
        for id, doc in self._records.all(SANDBOX).items():
            try:
                self._enter(Sandbox.from_record(id, doc))
            except (KeyError, TypeError, ValueError) as error:
                broken[id] = f"sandbox record {id}: {type(error).__name__}: {error}"
        states = self._records.all(CONTAINER_STATE)
        for id, doc in self._records.all(CONTAINER).items():
            try:
                sandbox = self.sandboxes.get(doc["sandbox"])
                container = Container.from_records(id, sandbox, doc, states.get(id, {}))
            except (KeyError, TypeError, ValueError, NotFound) as error:
                broken[id] = f"container record {id}: {type(error).__name__}: {error}"
                continue
            sandbox.containers[id] = container
            self.containers.add(container)
        self.unread = frozenset(broken)
        return list(broken.values())

    def forget_unread(self) -> None:
        """Give up what could not be read: nobody is known to have it any more."""
        for id in self.unread:
            for kind in (CONTAINER_STATE, CONTAINER, SANDBOX):
                self._records.delete(kind, id)
        self.unread = frozenset()
