"""Which plugin has set what: two plugins that want different things of one container are told so, by name.

A plugin may take over what another one has set by removing it first, which is a statement and not an accident. Such a
removal is kept as "-plugin" in the place of the owner (github.com/containerd/nri, pkg/api, OwningPlugins).
"""

from __future__ import annotations

from cri.proto import nri_pb2 as nri
from cri.server.nri.errors import NriFault


class Owners:
    """Owners of single fields, and of the entries of fields that have several, for each container."""

    def __init__(self) -> None:
        self._owners: dict[tuple[str, int, str | None], str] = {}

    def claim(self, container: str, field: int, plugin: str, key: str | None = None) -> None:
        """The plugin sets it; raises NriFault when another one has."""
        place = (container, field, key)
        other = self._owners.get(place)
        if other is not None and other != f"-{plugin}":
            what = " ".join(filter(None, (nri.Field.Name(nri.Field.ValueType(field)), key)))
            raise NriFault(f"NRI plugins {other.removeprefix('-')} and {plugin} both set {what} of one container")
        self._owners[place] = plugin

    def clear(self, container: str, field: int, plugin: str, key: str | None = None) -> None:
        """The plugin removes it, whoever has set it."""
        self._owners[container, field, key] = f"-{plugin}"

    def join(self, container: str, field: int, plugin: str) -> None:
        """The plugin adds to what several may add to."""
        old = self._owners.get((container, field, None))
        self._owners[container, field, None] = f"{old},{plugin}" if old else plugin

    def of(self, container: str, field: int, key: str | None = None) -> str:
        """The owner, or those who have added to it; "" when nobody has set it."""
        owner = self._owners.get((container, field, key), "")
        return "" if owner.startswith("-") else owner

    def keys(self, container: str, field: int) -> dict[str, str]:
        """The owners of a field's entries."""
        found = {
            key: owner
            for (id, number, key), owner in self._owners.items()
            if key and (id, number) == (container, field)
        }
        return {key: owner for key, owner in found.items() if not owner.startswith("-")}

    def message(self) -> nri.OwningPlugins:
        """For validators."""
        message = nri.OwningPlugins()
        for (container, field, key), owner in self._owners.items():
            fields = message.owners[container]
            if key is None:
                fields.simple[field] = owner
            else:
                fields.compound[field].owners[key] = owner
        return message
