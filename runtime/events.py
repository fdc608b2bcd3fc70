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

    @classmethod
    def from_json(cls, sandbox_id: str, doc: Mapping[str, Any]) -> Exited:
        """From a shim's event or record."""
        return cls(sandbox_id, doc["container"], doc["exit_code"], doc["finished_at"], doc["oom_killed"])


@dataclass(frozen=True, slots=True)
class ShimLostEvent:
    """A pod's shim is gone or speaks nonsense; its containers are dead or about to be: call destroy_lost()."""

    sandbox_id: str


Event = Exited | ShimLostEvent
