"""What a runtime tells its user unasked: containers that ended, shims that are lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Exited:
    """A container ended. `finished_at`: ns since the epoch; `exit_code`: 128 + signal when a signal ended it."""

    sandbox_id: str
    container_id: str
    exit_code: int
    finished_at: int
    oom_killed: bool
    #: From a record only: whoever had asked for the start may not have heard of it.
    started_at: int = 0

    @classmethod
    def from_json(cls, sandbox_id: str, doc: Mapping[str, Any]) -> Exited:
        """From a shim's event or record."""
        known = {name: doc[name] for name in ("exit_code", "finished_at", "oom_killed")}
        return cls(sandbox_id, doc["container"], **known, started_at=doc.get("started_at", 0))


@dataclass(frozen=True, slots=True)
class ShimLostEvent:
    """A pod's shim is gone or speaks nonsense; its containers are dead or about to be: call destroy_lost()."""

    sandbox_id: str


Event = Exited | ShimLostEvent
