"""Manifests for tests: the smallest pod, and changes to it."""

from __future__ import annotations

import json
from typing import Any

from nodeagent.pods.pod import Pod


def container(name: str = "main", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "localhost/busybox:1", **fields}


def manifest(name: str = "web", *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def pod(name: str = "web", *containers: dict[str, Any], **spec: Any) -> Pod:
    return Pod.of(manifest(name, *containers, **spec), "/manifests/web.yaml", "node-1")


def text(document: dict[str, Any]) -> bytes:
    """As a file holds it: JSON is YAML too."""
    return json.dumps(document).encode()
