"""Which PersistentVolume a claim has: decided once, then kept, since a volume given to another claim is leaked data.

    1. a binding that was made before stands, as long as both documents are the same thing
    2. a volume whose claimRef names a claim is that claim's
    3. a claim whose volumeName names a volume gets it, if no other claim has it
    4. else the smallest volume that fits: class, access modes, capacity, labels

What is missing or wrong with one document never changes what another claim gets. A claim that is gone keeps its volume
(reclaim policy Retain): the same claim finds its data again, and no other one finds it by accident.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from nodeagent.volumes.document import FieldError
from nodeagent.volumes.errors import ClaimError
from nodeagent.volumes.storage import Claim, PersistentVolume
from runtime.linux.database import DatabaseError
from runtime.linux.records import Records

log = logging.getLogger(__name__)

KIND = "claim-binding"


class ClaimIndex:
    """Claims and volumes of one state of the manifest directory.

    `kept` maps a volume's name to {"claim": its claim, "fingerprint": of what it was then}; `bindings` is the same
    afterwards. `problems` maps "PersistentVolume NAME" or "PersistentVolumeClaim NAMESPACE/NAME" to what is wrong.
    """

    def __init__(self, documents: Iterable[Mapping[str, Any]] = (), kept: Mapping[str, Mapping[str, Any]] = {}) -> None:
        self.problems: dict[str, str] = {}
        self._volumes: dict[str, PersistentVolume] = {}
        self._claims: dict[str, Claim] = {}
        #: Claims that have no volume because it could not be written down that they have it, and why.
        self.withheld: dict[str, str] = {}
        for document in documents:
            self._take(document)
        self.bindings = {name: dict(binding) for name, binding in kept.items() if self._stands(name, binding)}
        self._bind()

    def _take(self, document: Mapping[str, Any]) -> None:
        label = _label(document)
        try:
            if document.get("kind") == "PersistentVolume":
                volume = PersistentVolume.of(document)
                fresh = self._volumes.setdefault(volume.name, volume) is volume
            else:
                claim = Claim.of(document)
                fresh = self._claims.setdefault(claim.key, claim) is claim
            if not fresh:
                self.problems[label] = "is defined twice; the first one counts"
        except FieldError as error:
            self.problems[label] = str(error)

    def _stands(self, name: str, binding: Mapping[str, Any]) -> bool:
        """A document that is gone may come back, also one that is just being edited: its binding stays."""
        volume = self._volumes.get(name)
        return volume is None or (
            volume.fingerprint == binding.get("fingerprint") and volume.claim in ("", binding.get("claim"))
        )

    def _bind(self) -> None:
        for volume in sorted(self._volumes.values(), key=lambda v: v.name):
            if volume.claim and volume.name not in self.bindings and not self._bound(volume.claim):
                self._give(volume, volume.claim)
        named_first = sorted(self._claims.values(), key=lambda claim: (not claim.volume, claim.key))
        for claim in named_first:
            if not self._bound(claim.key) and (choice := self._choice(claim)) is not None:
                self._give(choice, claim.key)

    def _give(self, volume: PersistentVolume, claim: str) -> None:
        self.bindings[volume.name] = {"claim": claim, "fingerprint": volume.fingerprint}

    def _bound(self, claim: str) -> str:
        """The name of the volume that a claim has, or empty."""
        return next((name for name, binding in self.bindings.items() if binding["claim"] == claim), "")

    def _choice(self, claim: Claim) -> PersistentVolume | None:
        fitting = [volume for volume in self._volumes.values() if not self._obstacle(volume, claim)]
        return min(fitting, key=lambda volume: (volume.capacity, volume.name), default=None)

    def _obstacle(self, volume: PersistentVolume, claim: Claim) -> str:
        """Why the claim does not get this volume; empty when it may."""
        missing = [mode for mode in claim.access_modes if mode not in volume.access_modes]
        holder = self.bindings.get(volume.name, {}).get("claim", claim.key)
        checks = (
            (claim.volume not in ("", volume.name), f"the claim names {claim.volume}"),
            (volume.claim not in ("", claim.key), f"reserved for claim {volume.claim}"),
            (holder != claim.key, f"bound to claim {holder}"),
            (
                volume.storage_class != claim.storage_class,
                f"storageClassName is {volume.storage_class!r}, the claim's {claim.storage_class!r}",
            ),
            (bool(missing), f"lacks access mode {', '.join(missing)}"),
            (volume.capacity < claim.wanted, f"has {volume.capacity} bytes, wanted are {claim.wanted}"),
            (any(volume.labels.get(key) != value for key, value in claim.labels.items()), "labels do not match"),
        )
        return next((words for applies, words in checks if applies), "")

    def withhold(self, kept: Mapping[str, Mapping[str, Any]], why: str) -> None:
        """Take back all bindings but those `kept`: after a restart, nobody would know of them."""
        for name in [name for name, binding in self.bindings.items() if kept.get(name) != binding]:
            claim = self.bindings.pop(name)["claim"]
            self.withheld[claim] = f"cannot be given PersistentVolume {name} yet, for that is not written down: {why}"
            self.problems.setdefault(f"PersistentVolumeClaim {claim}", self.withheld[claim])

    def resolve(self, namespace: str, name: str) -> PersistentVolume:
        """The volume of a claim; raises ClaimError, with every volume and why it is not that one."""
        key = f"{namespace}/{name}"
        claim = self._claims.get(key)
        if claim is None:
            why = self.problems.get(f"PersistentVolumeClaim {key}")
            raise ClaimError(key, why or "there is no such PersistentVolumeClaim in the manifest directory; add one")
        volume = self._volumes.get(bound := self._bound(key))
        if volume is None:
            raise ClaimError(key, self._why_gone(bound) if bound else self._why_none(claim))
        if why := self._obstacle(volume, claim):
            raise ClaimError(key, f"is bound to PersistentVolume {bound}, but: {why}")
        return volume

    def _why_gone(self, bound: str) -> str:
        why = self.problems.get(f"PersistentVolume {bound}", "is not in the manifest directory any more; restore it")
        return f"is bound to PersistentVolume {bound}, which {why}"

    def _why_none(self, claim: Claim) -> str:
        if claim.key in self.withheld:
            return self.withheld[claim.key]
        reasons = [f"{each.name}: {self._obstacle(each, claim)}" for each in self._volumes.values()]
        reasons += [f"{label}: {why}" for label, why in self.problems.items() if label.startswith("PersistentVolume ")]
        return f"no PersistentVolume fits ({'; '.join(sorted(reasons)) or 'there is none'}); add one"


def _label(document: Mapping[str, Any]) -> str:
    """Names a document, however broken it is."""
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if document.get("kind") == "PersistentVolume":
        return f"PersistentVolume {metadata.get('name')}"
    return f"{document.get('kind')} {metadata.get('namespace') or 'default'}/{metadata.get('name')}"


class ClaimBook:
    """Keeps bindings across restarts, beside the agent's other records."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def index(self, documents: Iterable[Mapping[str, Any]]) -> ClaimIndex:
        """The claims of these documents, with all earlier bindings heeded and new ones written down.

        A binding that cannot be written is none; its claim is in `withheld`, and another index is to be made later.
        """
        kept = self._records.all(KIND)
        index = ClaimIndex(documents, kept)
        try:
            self._write(kept, index)
        except DatabaseError as error:
            log.error("volumes: claims: %s", error)
            index.withhold(kept, str(error))
        return index

    def _write(self, kept: Mapping[str, Mapping[str, Any]], index: ClaimIndex) -> None:
        for name in kept.keys() - index.bindings.keys():
            self._records.delete(KIND, name)
        for name, binding in index.bindings.items():
            if kept.get(name) != binding:
                self._records.put(KIND, name, binding)
