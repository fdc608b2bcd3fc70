"""Lines of the CRI log format: "2016-10-06T00:17:09.669794202Z stdout F content".

Source: kubernetes/design-proposals-archive, kubelet-cri-logging.md. The tag is F for a full line and P for a part
whose rest follows; more tags may stand behind it, after colons.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """`content` ends with a newline unless it is a part of a line. `time` is as it stands in the file."""

    time: bytes
    stream: bytes
    content: bytes


def parse_line(line: bytes) -> Line | None:
    """None for what is no such line, such as one that was cut off."""
    time, _, rest = line.partition(b" ")
    stream, _, rest = rest.partition(b" ")
    tags, separator, content = rest.partition(b" ")
    if stream not in (b"stdout", b"stderr") or not separator:
        return None
    partial = tags.split(b":")[0] == b"P"
    content = content.rstrip(b"\n")
    return Line(time, stream, content if partial else content + b"\n")
