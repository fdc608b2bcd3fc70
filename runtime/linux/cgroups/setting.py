"""One value for one interface file: what OCI resources are translated into before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Setting(NamedTuple):
    """`file` and `value` as the kernel takes them; `field` is the OCI field below linux.resources they come from."""

    controller: str
    file: str
    value: str
    field: str
    #: The host may lack the file or the controller: not having it amounts to the value.
    tolerant: bool = False


Settings = Iterable[Setting]
