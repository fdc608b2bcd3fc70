"""What every worker of the node works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cri.client import CriClient
from nodeagent.node import Node
from nodeagent.sync.journal import Journal
from nodeagent.sync.pod_files import PodFiles
from nodeagent.sync.pulls import ImageService
from nodeagent.sync.teardown import Teardown
from nodeagent.volumes.claims import ClaimIndex
from nodeagent.volumes.manager import VolumeManager


@dataclass(frozen=True, slots=True)
class Tools:
    """`claims` gives those of the manifest directory as it is now."""

    cri: CriClient
    node: Node
    journal: Journal
    images: ImageService
    volumes: VolumeManager
    claims: Callable[[], ClaimIndex]
    files: PodFiles
    teardown: Teardown
