"""Which VLANs a port of a bridge is in: the options vlan, vlanTrunk and preserveDefaultVlan of the bridge plugin.

Frames of the pod without a tag are of the native VLAN and get its tag at the port; on a trunk, frames with the tag of
one of its VLANs pass as they are. The VLAN that the kernel puts every port into is given up, unless it is to be kept.
The rules are those of the reference plugin since 1.8; a trunk without `vlan` has the native VLAN 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cni.errors import InvalidConfig

#: The last VLAN id (IEEE 802.1Q); 0 stands for none.
LAST: Final = 4094
NATIVE: Final = 1
_TRUNK: Final = 'write {"id": 7} or {"minID": 7, "maxID": 9}'


@dataclass(frozen=True, slots=True)
class Vlans:
    """`native` is 0 for a port without VLANs; `tagged` holds ranges, first and last included, in order."""

    native: int = 0
    tagged: tuple[tuple[int, int], ...] = ()
    preserve_default: bool = False

    def __bool__(self) -> bool:
        return bool(self.native or self.tagged)

    def carries(self, vlan: int) -> bool:
        """Whether its frames pass with their tag."""
        return any(first <= vlan <= last for first, last in self.tagged)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Vlans:
        """The options of a configuration; raises InvalidConfig."""
        native = config.get("vlan") or 0
        if not _is_id(native, least=0):
            raise InvalidConfig(f"bridge: vlan {native!r} is no VLAN id", f"it is a number from 1 to {LAST}")
        preserve = config.get("preserveDefaultVlan", False)
        if not isinstance(preserve, bool):
            raise InvalidConfig(f"bridge: preserveDefaultVlan must be true or false, not {preserve!r}")
        trunk = config.get("vlanTrunk") or []
        if not isinstance(trunk, list):
            raise InvalidConfig(f"bridge: vlanTrunk must be a list, not {trunk!r}", _TRUNK)
        ids = {id for item in trunk for id in _ids(item)}
        if ids and not native:
            native = NATIVE
        return cls(native, tuple(_ranges(ids - {native})), preserve)


def _ids(item: Any) -> set[int]:
    if not isinstance(item, Mapping) or not item:
        raise InvalidConfig(f"bridge: vlanTrunk: {item!r} is no range of VLANs", _TRUNK)
    unknown = item.keys() - {"id", "minID", "maxID"}
    if unknown or ("minID" in item) != ("maxID" in item):
        raise InvalidConfig(f"bridge: vlanTrunk: {dict(item)}", _TRUNK)
    for key, value in item.items():
        if not _is_id(value, least=1):
            raise InvalidConfig(f"bridge: vlanTrunk: {key} {value!r}", f"it is a number from 1 to {LAST}")
    if "minID" in item and item["minID"] > item["maxID"]:
        raise InvalidConfig(f"bridge: vlanTrunk: minID {item['minID']} is greater than maxID {item['maxID']}")
    single = {item["id"]} if "id" in item else set()
    return single | (set(range(item["minID"], item["maxID"] + 1)) if "minID" in item else set())


def _is_id(value: Any, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LAST


def _ranges(ids: set[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for id in sorted(ids):
        if found and found[-1][1] == id - 1:
            found[-1] = (found[-1][0], id)
        else:
            found.append((id, id))
    return found
