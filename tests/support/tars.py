"""Tar archives written byte by byte, for entries that no tool would write."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

from images.build import LayerFile, layer_tar


def raw_entry(
    name: bytes,
    kind: bytes = b"0",
    data: bytes = b"",
    link: bytes = b"",
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[str, bytes] | None = None,
) -> bytes:
    """One member, with a pax header where it has extended attributes."""
    info = tarfile.TarInfo()
    info.type, info.mode, info.size, info.uid, info.gid, info.mtime = kind, mode, len(data), uid, gid, mtime
    info.devmajor, info.devminor = device
    if xattrs:
        info.pax_headers = {f"SCHILY.xattr.{key}": value.decode("latin-1") for key, value in xattrs.items()}
    header = info.tobuf(format=tarfile.PAX_FORMAT if xattrs else tarfile.GNU_FORMAT, encoding="latin-1")
    last = header[-512:]
    last = name.ljust(100, b"\0") + last[100:157] + link.ljust(100, b"\0") + last[257:]
    total = sum(last[:148]) + 8 * 32 + sum(last[156:])
    last = last[:148] + b"%06o\0 " % total + last[156:]
    return header[:-512] + last + data + b"\0" * (-len(data) % 512)


def tar(*parts: bytes | LayerFile) -> bytes:
    """Members, raw ones or LayerFiles, put together to an archive."""
    out = io.BytesIO()
    for part in parts:
        out.write(part if isinstance(part, bytes) else layer_tar([part]).rstrip(b"\0"))
        out.write(b"\0" * (-out.tell() % 512))
    return out.getvalue() + bytes(1024)
