"""Where volumes are: the kubelet's directory layout, in which drivers, tools and a kubelet itself expect them.

<kubelet root>/
    pods/<pod uid>/volumes/
        kubernetes.io~empty-dir/<volume>/           the volume
        kubernetes.io~empty-dir/.<volume>/          one that is being removed
        kubernetes.io~csi/<volume>/vol_data.json    whose it is
        kubernetes.io~csi/<volume>/mount/           the volume, made and removed by the driver
    plugins/kubernetes.io/csi/<driver>/<sha256 of the volume's id>/
        vol_data.json
        globalmount/                                staged once for all pods
    plugins_registry/                               sockets of drivers that want to be known
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from runtime.linux.ledger import Effect

EMPTY_DIR = "kubernetes.io~empty-dir"
CSI = "kubernetes.io~csi"

#: What becomes a directory's name here: of DNS letters, never starting with a dot.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


class Layout:
    """Paths below one kubelet root. Raises ValueError for a name that is not one path component."""

    def __init__(self, kubelet_root: Path) -> None:
        self.root = kubelet_root
        self.pods = kubelet_root / "pods"
        self.staged = kubelet_root / "plugins" / "kubernetes.io" / "csi"
        self.registry = kubelet_root / "plugins_registry"

    def pod(self, uid: str) -> Path:
        return self.pods / component(uid)

    def volumes(self, uid: str) -> Path:
        return self.pod(uid) / "volumes"

    def effect(self, uid: str) -> Effect:
        """The ledger's entry of a pod's directories: written with its first volume, struck out after its last."""
        return Effect("dir", str(self.volumes(uid)), uid)

    def volume(self, uid: str, plugin: str, name: str) -> Path:
        return self.volumes(uid) / plugin / component(name)

    def staging(self, driver: str, handle: str) -> Path:
        """The directory that NodeStageVolume fills; the handle may hold anything, hence the hash."""
        return self.staged / component(driver) / hashlib.sha256(handle.encode()).hexdigest() / "globalmount"


def component(name: str) -> str:
    """`name`, checked; raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a directory")
    return name


def aside(volume: Path) -> Path:
    """The name of an emptyDir that is being removed; no volume can have it."""
    return volume.with_name(f".{volume.name}")


def make_private(path: Path) -> None:
    """mkdir -p where every directory that is made is closed to other users of the node (Path.mkdir's parents are not).

    Volumes are writable for everybody, so it is the way to them that keeps others out.
    """
    if path.is_dir():
        return
    make_private(path.parent)
    path.mkdir(mode=0o750, exist_ok=True)
