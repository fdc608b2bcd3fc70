"""Why a volume is not there; every message names the pod's volume and field, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class VolumeError(Exception):
    """One volume of a pod cannot be had, or not be taken away. `field` is where in the pod it is asked for."""

    def __init__(self, volume: str, reason: str, *, field: str = "") -> None:
        place = f" ({field})" if field else ""
        super().__init__(f'volume "{volume}"{place}: {reason}')
        self.volume = volume
        self.field = field
        self.reason = reason


class VolumesError(Exception):
    """Some volumes of a pod failed, each for its own reason; the others are as they should be."""

    def __init__(self, errors: Sequence[VolumeError]) -> None:
        super().__init__("; ".join(str(error) for error in errors))
        self.errors = tuple(errors)


class ClaimError(Exception):
    """A claim has no volume, or a document about one is wrong; `claim` is namespace/name."""

    def __init__(self, claim: str, reason: str) -> None:
        super().__init__(f"claim {claim}: {reason}")
        self.claim = claim
        self.reason = reason
