"""Names inside a layer: what an archive may call its members."""

from __future__ import annotations

from images.errors import UnsafeLayer
from images.limits import Limits

#: image-spec, layer.md, "Whiteouts".
WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
#: AUFS kept files and directories of its own under this prefix; they mean nothing here.
AUFS = b".wh..wh."


def clean(name: bytes, limits: Limits) -> bytes:
    """A member's name as a path relative to the root, without `.` and empty components; b"" is the root itself.

    A leading slash is dropped, as every tar program does. Raises UnsafeLayer for `..`, which no tool that makes
    images writes, and for names beyond the limits.
    """
    path = name.strip(b"/")
    if path.startswith(b"./") or b"//" in path or b"/." in path or path in (b".", b"..") or path.startswith(b"../"):
        path = _without_dots(path)
    if b"\0" in path:
        raise UnsafeLayer(f"a name with a zero byte in it: {shown(path)}")
    if len(path) > limits.path or path.count(b"/") >= limits.depth:
        raise UnsafeLayer(f"a name of {len(path)} bytes in {path.count(b'/') + 1} levels: {shown(path)}")
    return path


def _without_dots(path: bytes) -> bytes:
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UnsafeLayer(f"a name that climbs out of its directory: {shown(path)}")
    return b"/".join(parts)


def is_mark(path: bytes) -> bool:
    """Whether a path names no file of the image, but a whiteout or something of AUFS."""
    above, _, base = path.rpartition(b"/")
    return base.startswith(WHITEOUT) or any(part.startswith(AUFS) for part in above.split(b"/"))


def whiteout_target(base: bytes) -> bytes:
    """The name that a whiteout file hides; raises UnsafeLayer when that is no name."""
    target = base[len(WHITEOUT) :]
    if target in (b"", b".", b".."):
        raise UnsafeLayer(f"a whiteout of nothing: {shown(base)}")
    return target


def shown(name: bytes) -> str:
    """A name for messages: printable and not longer than a line."""
    text = ascii(name.decode("utf-8", "backslashreplace"))
    return text if len(text) <= 160 else f"{text[:120]}...{text[-30:]}"
