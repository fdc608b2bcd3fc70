"""Messages of the interface in JSON records: as their wire form, which keeps fields that this version does not know."""

from __future__ import annotations

import base64
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

M = TypeVar("M", bound=Message)


def encode(message: Message) -> str:
    """A message for a record."""
    return base64.b64encode(message.SerializeToString()).decode("ascii")


def decode(kind: type[M], text: str) -> M:
    """The inverse; raises ValueError."""
    try:
        return kind.FromString(base64.b64decode(text))
    except DecodeError as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error
