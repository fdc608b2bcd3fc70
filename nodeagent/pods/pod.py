"""A pod as the agent holds it: the manifest's document with the API's defaults, and an identity.

    document --check_pod()--> no errors --Pod.of(document, source, node)--> Pod

Two names matter. `key` (namespace/name) is what a manifest speaks of: one worker serves one key. `uid` stands for one
life of it: it is made from the node, the file and the document, so that a changed manifest is a new pod, which starts
once the old one is gone, and an unchanged one is the same pod after a restart of the agent. A manifest may fix
metadata.uid; then `digest` alone tells the two apart. Source of the rule: pkg/kubelet/config/common.go.
"""

from __future__ import annotations

import copy
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

#: Seconds between SIGTERM and SIGKILL.
DEFAULT_GRACE = 30


class Key(NamedTuple):
    """What a pod is called; unlike its uid it stays when the manifest changes."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Pod:
    """`document` is a v1.Pod with defaults filled in; it is read, never changed."""

    uid: str
    digest: str
    source: str
    document: dict[str, Any]

    @classmethod
    def of(cls, document: dict[str, Any], source: str, node: str) -> Pod:
        """`document` has passed check_pod. `source` names where it comes from, such as a file's path."""
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(f"{node}\n{source}\n{text}".encode()).hexdigest()
        whole = with_defaults(document)
        metadata = whole["metadata"]
        metadata["uid"] = metadata.get("uid") or str(uuid.UUID(digest[:32]))
        return cls(metadata["uid"], digest[:32], source, whole)

    @property
    def metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = self.document["metadata"]
        return metadata

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.document["spec"]
        return spec

    @property
    def key(self) -> Key:
        return Key(self.metadata["namespace"], self.metadata["name"])

    @property
    def restart_policy(self) -> str:
        policy: str = self.spec["restartPolicy"]
        return policy

    @property
    def grace(self) -> int:
        """Seconds."""
        seconds: int = self.spec["terminationGracePeriodSeconds"]
        return seconds

    @property
    def init_containers(self) -> list[dict[str, Any]]:
        return self.spec.get("initContainers") or []

    @property
    def containers(self) -> list[dict[str, Any]]:
        containers: list[dict[str, Any]] = self.spec["containers"]
        return containers

    @property
    def security(self) -> dict[str, Any]:
        return self.spec.get("securityContext") or {}

    def all_containers(self) -> Iterator[dict[str, Any]]:
        yield from self.init_containers
        yield from self.containers

    def container(self, name: str) -> dict[str, Any]:
        return next(container for container in self.all_containers() if container["name"] == name)

    def at_once(self, of: Callable[[dict[str, Any]], int]) -> int:
        """The most that containers running at the same time come to, `of` being what one of them counts for.

        An init container that ends runs beside the sidecars that were started before it, the containers run beside all
        sidecars. Source: k8s.io/component-helpers/resource (PodLimits).
        """
        running = most = 0
        for each in self.init_containers:
            most = max(most, running + of(each))
            running += of(each) if is_sidecar(each) else 0
        return max(most, running + sum(map(of, self.containers)))


def is_sidecar(container: dict[str, Any]) -> bool:
    """An init container that stays: started in its turn, restarted always, stopped last (KEP-753)."""
    return container.get("restartPolicy") == "Always"


def with_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """A copy with the defaults of pkg/apis/core/v1/defaults.go, as far as this agent reads the fields."""
    whole = copy.deepcopy(document)
    whole["metadata"]["namespace"] = whole["metadata"].get("namespace") or "default"
    spec = whole["spec"]
    spec["restartPolicy"] = spec.get("restartPolicy") or "Always"
    spec["dnsPolicy"] = spec.get("dnsPolicy") or "ClusterFirst"
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = DEFAULT_GRACE
    for container in (spec.get("initContainers") or []) + spec["containers"]:
        _fill_container(container)
    return whole


def _fill_container(container: dict[str, Any]) -> None:
    container["imagePullPolicy"] = container.get("imagePullPolicy") or _pull_policy(container["image"])
    container["terminationMessagePath"] = container.get("terminationMessagePath") or "/dev/termination-log"
    container["terminationMessagePolicy"] = container.get("terminationMessagePolicy") or "File"
    for port in container.get("ports") or []:
        port["protocol"] = port.get("protocol") or "TCP"
    resources = container.get("resources") or {}
    requests = resources.get("requests") or {}
    container["resources"] = resources | {"requests": (resources.get("limits") or {}) | requests}


def _pull_policy(image: str) -> str:
    """An image without a tag, or with :latest, may have changed since; one named by digest cannot."""
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    moving = "@" not in image and tag in ("", "latest")
    return "Always" if moving else "IfNotPresent"
