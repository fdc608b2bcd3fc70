"""What plugins know, where it is not what the store has.

A pod that is being made is told of before it is in the store, and one that is being removed still is in there when its
end has been told. A plugin that connects in between must hear of the first by Synchronize, and not of the second.
"""

from __future__ import annotations

from cri.server.pods import Container, Sandbox
from cri.server.store import Store


class View:
    """Pods and containers as a plugin that connects now has to know them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pods: dict[str, Sandbox] = {}
        self._containers: dict[str, Container] = {}
        self._gone: set[str] = set()

    def add_pod(self, sandbox: Sandbox) -> None:
        self._pods[sandbox.id] = sandbox

    def knows_pod(self, id: str) -> bool:
        """Whether it has been told of, or is just being told of."""
        return id in self._pods

    def add_container(self, container: Container) -> None:
        self._containers[container.id] = container

    def drop(self, id: str) -> bool:
        """Its end is told from now on; False when it was told before."""
        self._pods.pop(id, None)
        self._containers.pop(id, None)
        if id in self._gone:
            return False
        self._gone.add(id)
        return True

    def forget(self, id: str) -> None:
        """It has left the store too."""
        self._gone.discard(id)

    def pods(self) -> list[Sandbox]:
        known = {sandbox.id: sandbox for sandbox in self._store.sandboxes} | self._pods
        return [sandbox for id, sandbox in known.items() if id not in self._gone]

    def containers(self) -> list[Container]:
        """Those that have not ended."""
        known = {container.id: container for container in self._store.containers} | self._containers
        return [each for id, each in known.items() if id not in self._gone and not each.finished_at]
