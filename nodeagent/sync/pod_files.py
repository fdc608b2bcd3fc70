"""The agent's own files of a pod: /etc/hosts, termination messages, the log directory.

    <kubelet root>/pods/<uid>/etc-hosts
    <kubelet root>/pods/<uid>/evicted                             why it was ended, where it was evicted
    <kubelet root>/pods/<uid>/containers/<container>/<attempt>     the termination message of one container
    <log root>/<namespace>_<name>_<uid>/<container>/<attempt>.log  written by the runtime, rotated and removed here

Both directories stand in the ledger, with the pod's uid as holder, before they are made.
"""

from __future__ import annotations

import os
from pathlib import Path

from nodeagent.node import Node
from nodeagent.pods.pod import Pod
from nodeagent.translate.network import hosts_file
from nodeagent.translate.sandbox import log_directory
from runtime.linux.files import write_atomic
from runtime.linux.ledger import Effect, Ledger
from runtime.linux.trees import remove_tree

#: Bytes of a termination message that count, as in the kubelet.
MESSAGE_LIMIT = 4096
EVICTED = "evicted"


class PodFiles:
    """Made before a pod's first sandbox, removed after its last; in the ledger meanwhile."""

    def __init__(self, node: Node, ledger: Ledger) -> None:
        self._node = node
        self._ledger = ledger

    def directory(self, uid: str) -> Path:
        return self._node.kubelet_root / "pods" / uid

    def make(self, pod: Pod, pod_ips: tuple[str, ...]) -> None:
        """Before the first container of a sandbox. Raises OSError."""
        place, logs = self.directory(pod.uid), log_directory(pod, self._node)
        self._ledger.record(Effect("dir", str(place), pod.uid), Effect("dir", str(logs), pod.uid))
        place.mkdir(mode=0o750, parents=True, exist_ok=True)
        logs.mkdir(mode=0o755, parents=True, exist_ok=True)
        # The file is mounted into containers: they may read it, and the one that is mounted stays as it is.
        write_atomic(place / "etc-hosts", hosts_file(pod, pod_ips).encode(), 0o644)

    def hosts(self, uid: str) -> Path:
        return self.directory(uid) / "etc-hosts"

    def message(self, uid: str, container: str, attempt: int) -> Path:
        return self.directory(uid) / "containers" / container / str(attempt)

    def make_message(self, uid: str, container: str, attempt: int) -> Path:
        """A file of its own for each attempt, writable for whoever the container runs as. Raises OSError."""
        place = self.message(uid, container, attempt)
        place.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        write_atomic(place, b"", 0o666)
        return place

    def read_message(self, uid: str, container: str, attempt: int) -> str:
        """What the container left there; nothing when the file is gone or is no file any more."""
        try:
            # Read as far as it counts: the container may have written gigabytes.
            fd = os.open(self.message(uid, container, attempt), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return ""
        try:
            return os.read(fd, MESSAGE_LIMIT).decode(errors="replace")
        finally:
            os.close(fd)

    def write_eviction(self, pod: Pod, message: str) -> None:
        """Raises OSError."""
        write_atomic(self.directory(pod.uid) / EVICTED, f"{pod.digest}\n{message}".encode())

    def read_eviction(self, pod: Pod) -> str:
        """Why this pod was evicted; nothing for one that was not. Raises OSError."""
        try:
            digest, _, message = (self.directory(pod.uid) / EVICTED).read_text().partition("\n")
        except FileNotFoundError:
            return ""
        # A manifest may give the same uid to another pod.
        return message if digest == pod.digest else ""

    def forget_attempt(self, uid: str, container: str, attempt: int, log_path: str) -> None:
        """After a dead container was removed: its message and its logs, rotated ones too."""
        self.message(uid, container, attempt).unlink(missing_ok=True)
        if not log_path.startswith(f"{self._node.log_root}/"):
            return
        log = Path(log_path)
        for each in log.parent.glob(f"{log.name}*"):
            each.unlink(missing_ok=True)

    def remove(self, uid: str) -> None:
        """All of a pod whose containers and volumes are gone. Raises OSError; may be repeated."""
        for effect in self._ledger.entries("dir", uid):
            if Path(effect.key) == self.directory(uid) or Path(effect.key).parent == self._node.log_root:
                remove_tree(effect.key)
                self._ledger.strike(effect)

    def uids(self) -> set[str]:
        """Pods that have files here."""
        pods = self._node.kubelet_root / "pods"
        return {entry.holder for entry in self._ledger.entries("dir") if Path(entry.key).parent == pods}
