"""Environment, command and arguments: fields resolved, $(NAME) expanded.

Expansion follows k8s.io/kubernetes/third_party/forked/golang/expansion: $(NAME) is replaced when NAME is known and
stays as it is otherwise; $$ is one dollar, so $$(NAME) is never expanded. A variable sees those before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nodeagent.node import Node
from nodeagent.pods import quantity
from nodeagent.pods.env_sources import is_keyed_field, keyed_field
from nodeagent.pods.pod import Pod

_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")


def expand(text: str, values: Mapping[str, str]) -> str:
    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else values.get(name, match[0])

    return _REFERENCE.sub(replaced, text)


def environment(pod: Pod, container: Mapping[str, Any], node: Node, pod_ips: tuple[str, ...]) -> dict[str, str]:
    """In the manifest's order; a name that stands twice has its last value."""
    values: dict[str, str] = {}
    for variable in container.get("env") or []:
        source = variable.get("valueFrom")
        if source is None:
            value = expand(variable.get("value") or "", values)
        elif source.get("fieldRef"):
            value = field_value(pod, source["fieldRef"]["fieldPath"], node, pod_ips)
        else:
            value = resource_value(pod, container, source["resourceFieldRef"], node)
        values[variable["name"]] = value
    return values


def field_value(pod: Pod, path: str, node: Node, pod_ips: tuple[str, ...]) -> str:
    """The downward API's fields. `path` has passed validation."""
    if is_keyed_field(path):
        kind, key = keyed_field(path)
        return (pod.metadata.get(kind) or {}).get(key) or ""
    fields = {
        "metadata.name": pod.key.name,
        "metadata.namespace": pod.key.namespace,
        "metadata.uid": pod.uid,
        "spec.nodeName": node.name,
        "spec.serviceAccountName": pod.spec.get("serviceAccountName") or "",
        "status.hostIP": node.addresses[0],
        "status.hostIPs": ",".join(node.addresses),
        "status.podIP": pod_ips[0] if pod_ips else "",
        "status.podIPs": ",".join(pod_ips),
    }
    return fields[path]


def resource_value(pod: Pod, container: Mapping[str, Any], reference: Mapping[str, Any], node: Node) -> str:
    """In units of the divisor, rounded up. A limit that is not set is what the node has."""
    name = reference.get("containerName")
    target = pod.container(name) if name and any(each["name"] == name for each in pod.all_containers()) else container
    kind, _, resource = reference["resource"].partition(".")
    amount = (target["resources"].get(kind) or {}).get(resource)
    if amount is None:
        whole_node = node.cpus if resource == "cpu" else node.memory
        amount = whole_node if kind == "limits" else 0
    divisor = quantity.parse(reference.get("divisor") or 1) or quantity.parse(1)
    return str(-(-quantity.parse(amount) // divisor))
