"""Images made on this machine, from files that are here already: no registry, no builder, always the same digest.

The demo needs an image where there is no internet, and so do tests. Nothing in a built image depends on the clock,
on the machine or on the order of a directory listing: the same files give the same image id everywhere.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.digest import Digest
from images.errors import ImageError
from images.media import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from images.platform import Platform
from images.source import Fetched, Memory
from runtime.linux.commands import run_command
from runtime.linux.files import read_limited

SOURCE_LIMIT = 512 << 20
APPLET_LIST_LIMIT = 64 << 10
ELF_INTERPRETER = 3
PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
www-data:x:33:
users:x:100:
nogroup:x:65534:
"""


@dataclass(frozen=True, slots=True)
class LayerFile:
    """One entry of a layer; `path` is relative to the image's root. Made by the functions below."""

    path: str
    type: bytes
    data: bytes | Path = b""
    target: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


def regular(path: str, data: bytes | Path, mode: int = 0o644, uid: int = 0, gid: int = 0) -> LayerFile:
    """A file with this content, or with that of a file of this machine (at most 512 MiB)."""
    return LayerFile(path, tarfile.REGTYPE, data, mode=mode, uid=uid, gid=gid)


def directory(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> LayerFile:
    """A directory; one that is not named before the files in it gets mode 0755 and root as its owner."""
    return LayerFile(path, tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def symlink(path: str, target: str) -> LayerFile:
    """A symbolic link with any text in it."""
    return LayerFile(path, tarfile.SYMTYPE, target=target, mode=0o777)


def hardlink(path: str, target: str) -> LayerFile:
    """Another name of `target`, a path that came earlier in the same layer."""
    return LayerFile(path, tarfile.LNKTYPE, target=target)


def layer_tar(files: Sequence[LayerFile]) -> bytes:
    """The layer as an uncompressed tar: entries in the order given, every time stamp 0, owners by number only."""
    out = io.BytesIO()
    modes: dict[str, int] = {}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            info = tarfile.TarInfo(file.path.strip("/"))
            info.type, info.linkname = file.type, file.target
            # A hard link has its target's mode: some runtimes apply what the entry says to the inode both share.
            info.mode = modes.get(file.target.strip("/"), file.mode) if file.type == tarfile.LNKTYPE else file.mode
            info.uid, info.gid = file.uid, file.gid
            modes[info.name] = info.mode
            data = read_limited(file.data, SOURCE_LIMIT) if isinstance(file.data, Path) else file.data
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def build_image(name: str, layers: Sequence[bytes], config: Mapping[str, Any], platform: Platform) -> Memory:
    """Put uncompressed layer tars and an image config's `config` object (OCI image-spec, config.md) into an image."""
    diff_ids = [Digest.of(layer) for layer in layers]
    document = {
        "created": "1970-01-01T00:00:00Z",
        **platform.to_json(),
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    described = json.dumps(document, sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": Digest.of(described), "size": len(described)},
        "layers": [
            {"mediaType": OCI_LAYER, "digest": diff_id, "size": len(layer)}
            for diff_id, layer in zip(diff_ids, layers, strict=True)
        ],
    }
    blobs = {Digest.of(described): described, **dict(zip(diff_ids, layers, strict=True))}
    body = json.dumps(manifest, sort_keys=True).encode()
    return Memory(name, blobs, Fetched(body, OCI_MANIFEST, Digest.of(body)))


def busybox_tree(binary: Path = Path("/bin/busybox")) -> list[LayerFile]:
    """A small root file system around this machine's busybox: every applet is a hard link in /bin.

    Hard links, because a mask over one applet must not mask them all, as it would through a symbolic link.
    Raises ImageError when the binary is missing or needs shared libraries.
    """
    content = _static_executable(binary)
    listed = run_command([str(binary), "--list"], timeout=10, limit=APPLET_LIST_LIMIT).stdout.decode("ascii")
    applets = sorted(set(listed.split()) - {"busybox"})
    directories = ["bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "usr/sbin", "var", "var/www"]
    return [
        *(directory(path) for path in directories),
        directory("tmp", 0o1777),
        regular("etc/passwd", PASSWD.encode()),
        regular("etc/group", GROUP.encode()),
        regular("bin/busybox", content, 0o755),
        *(hardlink(f"bin/{applet}", "bin/busybox") for applet in applets),
    ]


def _static_executable(path: Path) -> bytes:
    try:
        content = read_limited(path, SOURCE_LIMIT)
    except OSError as error:
        raise ImageError(f"cannot read {path} ({error}): install the package busybox-static") from error
    if _program_header_types(content) & {ELF_INTERPRETER}:
        raise ImageError(f"{path} needs shared libraries, which an image of its own lacks: install busybox-static")
    return content


def _program_header_types(elf: bytes) -> set[int]:
    """The p_type of every program header of a 64-bit little-endian ELF file (elf(5)); empty for anything else."""
    if elf[:6] != b"\x7fELF\x02\x01":
        return set()
    offset, size, count = (
        int.from_bytes(elf[32:40], "little"),
        int.from_bytes(elf[54:56], "little"),
        int.from_bytes(elf[56:58], "little"),
    )
    starts = range(offset, offset + size * count, size or 1)
    return {int.from_bytes(elf[start : start + 4], "little") for start in starts}
