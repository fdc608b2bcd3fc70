"""Route netlink messages, encoded by pyroute2, once.

pyroute2 describes messages as tables and encodes them attribute by attribute, which costs 50 to 200 us each, half of
what the kernel needs for the whole pod. The messages of one pod differ from those of the next in a few fields of fixed
length only, so those that every pod needs are encoded once, with marks in these fields, and patched from then on.

Sources: rtnetlink(7), linux/netlink.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import struct
from typing import Any, Final

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
#: Flags of a request that must make something new.
NEW: Final = NLM_F_CREATE | NLM_F_EXCL

INDEX_MARK: Final = 0x5EEDAB1E


class Template:
    """An encoded message with holes: each mark stands in it exactly once, and a value has the length of its mark."""

    def __init__(self, data: bytes, **marks: bytes) -> None:
        self._data = data
        self._holes = {name: (data.index(mark), len(mark)) for name, mark in marks.items()}
        assert all(data.count(mark) == 1 for mark in marks.values())

    def fill(self, **values: bytes) -> bytes:
        """The message with every hole filled."""
        message = bytearray(self._data)
        for name, (start, length) in self._holes.items():
            value = values[name]
            assert len(value) == length, name
            message[start : start + length] = value
        return bytes(message)


def encode(message: Any, kind: int, nlm_flags: int, attributes: list[tuple[str, Any]], **fields: int) -> bytes:
    """One message of a pyroute2 class, which asks for an acknowledgement; `fields` are those of its fixed part."""
    for name, value in fields.items():
        message[name] = value
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | nlm_flags
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data)


def nested(*attributes: tuple[str, Any]) -> dict[str, Any]:
    """Attributes inside an attribute."""
    return {"attrs": list(attributes)}


def u32(number: int) -> bytes:
    """A number as it stands in a message."""
    return struct.pack("=I", number)
