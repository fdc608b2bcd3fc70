"""The documents of a checkpoint archive, with the fields that checkpointctl, containerd and CRI-O write and read.

config.dump   which container, of which image, when (checkpointctl, lib/metadata.go: ContainerConfig)
spec.dump     the OCI configuration, with the annotations by which tools find the pod
status.dump   the CRI's ContainerStatus
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict

from cri.server.errors import InvalidRequest
from cri.server.pods import Container
from cri.server.statuses import container_status

CONFIG, SPEC, STATUS = "config.dump", "spec.dump", "status.dump"
LIMIT = 4 << 20


def documents_of(container: Container) -> dict[str, bytes]:
    """By name, as they stand in the archive."""
    return {
        name: json.dumps(document, indent=1).encode()
        for name, document in (
            (CONFIG, _config(container)),
            (SPEC, _spec(container)),
            (STATUS, MessageToDict(container_status(container), preserving_proto_field_name=True)),
        )
    }


def _config(container: Container) -> dict[str, Any]:
    image = container.config.image
    return {
        "id": container.id,
        "name": container.config.metadata.name,
        "rootfsImage": image.user_specified_image or image.image,
        "rootfsImageRef": container.image_id,
        "rootfsImageName": image.user_specified_image or image.image,
        "runtime": "crid",
        "createdTime": _time(container.created_at),
        "checkpointedTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": False,
    }


def _spec(container: Container) -> dict[str, Any]:
    """With what both CRI-O and containerd annotate, since tools look for either."""
    metadata, pod = container.config.metadata, container.sandbox.config.metadata
    annotations = {
        "io.container.manager": "crid",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": metadata.name,
        "io.kubernetes.cri.sandbox-id": container.sandbox.id,
        "io.kubernetes.cri.sandbox-name": pod.name,
        "io.kubernetes.cri.sandbox-namespace": pod.namespace,
        "io.kubernetes.cri.sandbox-uid": pod.uid,
    }
    return {**container.spec.oci, "annotations": annotations}


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat().replace("+00:00", "Z")


def base_image(config: bytes) -> list[str]:
    """The names by which an archive's config.dump calls the image below: its digest first. Raises InvalidRequest."""
    try:
        document = json.loads(config)
        named = [document.get(key) for key in ("rootfsImageRef", "rootfsImageName", "rootfsImage")]
    except (ValueError, AttributeError, RecursionError) as error:
        raise InvalidRequest(f"the checkpoint's {CONFIG} cannot be read: {error}") from error
    names = [name for name in named if isinstance(name, str) and 0 < len(name) < 1000]
    if not names:
        raise InvalidRequest(f"the checkpoint's {CONFIG} does not say which image the container was of")
    return names
