"""Labels and annotations that the agent puts on sandboxes and containers, and its state with them.

The CRI gives them back unchanged, so all that a restarted agent must know of a pod stands here. Names that the kubelet
uses are kept, because tools read them; the agent's own say whose a pod is (another agent or a person may have pods on
the same runtime) and carry what the kubelet keeps in memory. A pod's own labels cannot shadow them: these come last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nodeagent.node import Node
from nodeagent.pods.pod import Key, Pod, is_sidecar

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
#: Label: the name of the node whose agent made it. What lacks it is somebody else's and left alone.
NODE = "io.nodeagent.node"

SOURCE = "kubernetes.io/config.source"
DIGEST = "kubernetes.io/config.hash"
GRACE = "io.kubernetes.pod.terminationGracePeriod"
PRE_STOP = "io.kubernetes.container.preStopHandler"
RESTARTS = "io.kubernetes.container.restartCount"
MESSAGE_PATH = "io.kubernetes.container.terminationMessagePath"
MESSAGE_POLICY = "io.kubernetes.container.terminationMessagePolicy"
#: init, sidecar or main: decides the order in which containers are stopped.
ROLE = "io.nodeagent.container.role"
ORDER = "io.nodeagent.container.order"
#: Seconds to wait when this container ends before the next one is started.
BACKOFF = "io.nodeagent.container.backoff"


def selector(key: Key, node: Node) -> dict[str, str]:
    return {POD_NAMESPACE: key.namespace, POD_NAME: key.name, NODE: node.name}


def pod_labels(pod: Pod, node: Node) -> dict[str, str]:
    own = {name: value or "" for name, value in (pod.metadata.get("labels") or {}).items()}
    return own | _identity(pod, node)


def pod_annotations(pod: Pod) -> dict[str, str]:
    own = {name: value or "" for name, value in (pod.metadata.get("annotations") or {}).items()}
    return own | {SOURCE: pod.source, DIGEST: pod.digest, GRACE: str(pod.grace)}


def container_labels(pod: Pod, container: Mapping[str, Any], node: Node) -> dict[str, str]:
    return _identity(pod, node) | {CONTAINER_NAME: container["name"]}


def container_annotations(pod: Pod, container: dict[str, Any], attempt: int, backoff: float) -> dict[str, str]:
    hook = (container.get("lifecycle") or {}).get("preStop")
    return {
        DIGEST: pod.digest,
        GRACE: str(pod.grace),
        RESTARTS: str(attempt),
        MESSAGE_PATH: container["terminationMessagePath"],
        MESSAGE_POLICY: container["terminationMessagePolicy"],
        ROLE: role(pod, container),
        ORDER: str(next(place for place, each in enumerate(pod.all_containers()) if each is container)),
        BACKOFF: f"{backoff:g}",
        **({PRE_STOP: json.dumps(hook)} if hook else {}),
    }


def role(pod: Pod, container: dict[str, Any]) -> str:
    if not any(each is container for each in pod.init_containers):
        return "main"
    return "sidecar" if is_sidecar(container) else "init"


def _identity(pod: Pod, node: Node) -> dict[str, str]:
    return {POD_NAME: pod.key.name, POD_NAMESPACE: pod.key.namespace, POD_UID: pod.uid, NODE: node.name}
