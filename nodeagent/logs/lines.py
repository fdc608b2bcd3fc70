"""Lines of the CRI log format: "2016-10-06T00:17:09.669794202Z stdout F content".

Source: kubernetes/design-proposals-archive, kubelet-cri-logging.md. The tag is F for a full line and P for a part
whose rest follows; more tags may stand behind it, after colons.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

_FRACTION = re.compile(r"\.(\d{1,9})")


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


def nanoseconds(text: str) -> int:
    """Of an RFC 3339 time, since the epoch; 0 when it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0
    # datetime knows microseconds only.
    fraction = _FRACTION.search(text)
    moment = moment.replace(microsecond=0, tzinfo=moment.tzinfo or UTC)
    return int(moment.timestamp()) * 10**9 + (int(fraction[1].ljust(9, "0")) if fraction else 0)
