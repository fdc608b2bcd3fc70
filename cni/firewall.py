"""The nftables of pod networks: one table, whose rules never change (cni.ruleset); elements of its sets come and go.

A pod costs no rule, so a packet's way does not grow with the number of pods. Elements carry their owner as a comment;
the kernel refuses a second owner of one port, so a host port is never taken over from a pod that has it.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final
from urllib.parse import quote

from cni.errors import CniError
from cni.nftables import Nftables, NftablesError
from cni.ruleset import MAPS, SETS, ruleset

DEFAULT_TABLE: Final = "nodeagent_cni"
#: NFTNL_UDATA_COMMENT_MAXLEN of libnftnl, less the closing NUL.
COMMENT_LIMIT: Final = 127
PREFIX_LIMIT: Final = 48
_TABLE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,60}")
_COMMENT: Final = re.compile(r'comment "([^"]*)"')


@dataclass(frozen=True, slots=True)
class Element:
    """An element of one of the table's sets or maps: `key`, for a map the `value`, and whose it is."""

    where: str
    key: str
    owner: str
    value: str = ""

    def __str__(self) -> str:
        value = f" : {self.value}" if self.value else ""
        return f'{self.key} comment "{self.owner}"{value}'

    def to_json(self) -> dict[str, str]:
        """The form for the ledger."""
        return {"where": self.where, "key": self.key, "owner": self.owner, "value": self.value}

    @classmethod
    def from_json(cls, doc: dict[str, Any]) -> Element:
        """The inverse of to_json(); raises KeyError."""
        return cls(doc["where"], doc["key"], doc["owner"], doc["value"])


def owner_name(network: str, container_id: str, ifname: str) -> str:
    """The comment of an attachment's elements, at most COMMENT_LIMIT characters that nft takes as they are."""
    name = f"{owner_prefix(network)}{container_id} {quote(ifname, safe='')}"
    if len(name) <= COMMENT_LIMIT:
        return name
    return f"{owner_prefix(network)}{hashlib.sha256(name.encode()).hexdigest()[:40]}"


def owner_prefix(network: str) -> str:
    """What the owner names of all attachments of a network begin with."""
    return f"{network} " if len(network) <= PREFIX_LIMIT else f"{hashlib.sha256(network.encode()).hexdigest()[:16]} "


def network_owner(network: str) -> str:
    """The comment of the elements that all attachments of a network share."""
    return owner_prefix(network).rstrip()


def masquerade(subnet: IPv4Network | IPv6Network, network: str) -> list[Element]:
    """What leaves `subnet` for anywhere else gets the host's address."""
    owner = network_owner(network)
    version, anywhere = subnet.version, "0.0.0.0/0" if subnet.version == 4 else "::/0"
    return [
        Element(f"inside{version}", f"{subnet} . {subnet}", owner),
        Element(f"masquerade{version}", f"{subnet} . {anywhere}", owner),
    ]


def hairpin(subnet: IPv4Network | IPv6Network, network: str) -> list[Element]:
    """What goes from `subnet` to a host port and so back into it gets the host's address, to return the same way."""
    return [Element(f"hairpin{subnet.version}", f"{subnet} . {subnet}", network_owner(network))]


class Firewall:
    """The table of one name, made when it is needed and made again when somebody has flushed it."""

    def __init__(self, nftables: Nftables, table: str = DEFAULT_TABLE) -> None:
        if not _TABLE_NAME.fullmatch(table):
            raise CniError(f"{table!r} is no name for an nftables table")
        self.table = table
        #: Called when the table was gone: what was in it before, so that a flush does not cut pods off.
        self.recall: Callable[[], Iterable[Element]] = tuple
        self._nftables = nftables
        self._lock = threading.Lock()

    def add(self, *elements: Element, before: Callable[[], None] = lambda: None) -> None:
        """Put elements in, all or none; ones that are there with the same owner are fine.

        `before` is called when it is sure that nobody else has one of them, and before anything is done. Raises
        CniError when somebody has, NftablesError when the kernel refuses.
        """
        with self._lock:
            missing = [element for element in elements if not self._is_there(element)]
            before()
            if missing:
                self._insert(missing)

    def renew(self) -> None:
        """Make the rules again, and the known elements that are missing: in one step, which no packet notices."""
        with self._lock:
            missing = [element for element in self.recall() if self.owner(element) is None]
            self._nftables.run("\n".join([ruleset(self.table), *(self._command("add", each) for each in missing)]))

    def remove(self, *elements: Element) -> None:
        """Take out those elements that belong to the owner they name; missing ones are fine."""
        with self._lock:
            present = [element for element in elements if self.owner(element) == element.owner]
            if present:
                self._nftables.run("\n".join(self._command("delete", element) for element in present))

    def owner(self, element: Element) -> str | None:
        """Whose element of this key it is, or None when there is none."""
        try:
            found = self._nftables.run(f"get element inet {self.table} {element.where} {{ {element.key} }}")
        except NftablesError as error:
            if "No such file or directory" in error.message:
                return None
            raise
        comment = _COMMENT.search(found)
        return comment.group(1) if comment else ""

    def elements(self, where: str) -> list[tuple[str, str]]:
        """(key, owner) of every element of a set or map."""
        try:
            listed = self._nftables.run(f"list {'map' if where in MAPS else 'set'} inet {self.table} {where}")
        except NftablesError as error:
            if "No such file or directory" in error.message:
                return []
            raise
        return _parse_elements(listed)

    def key(self, element: Element) -> str:
        """What the ledger knows an element by."""
        return f"inet {self.table} {element.where} {element.key}"

    def detail(self, element: Element) -> dict[str, str]:
        """What the ledger keeps of an element: enough to take it out, and to put it back."""
        return {"table": self.table} | element.to_json()

    def delete_if_unused(self) -> bool:
        """Remove the table unless somebody has an element in it; a missing one is fine."""
        with self._lock:
            unused = not any(self.elements(where) for where in (*SETS, *MAPS))
            if unused:
                self.delete()
            return unused

    def delete(self) -> None:
        """Remove the table with everything in it; a missing one is fine."""
        # "add" first, so that there is something to delete: a failed command costs 15 ms.
        self._nftables.run(f"add table inet {self.table}; delete table inet {self.table}")

    def _is_there(self, element: Element) -> bool:
        """Of a set, any owner's element does the same; of a map, each owner wants its own value."""
        owner = self.owner(element)
        if element.value and owner not in (None, element.owner):
            raise CniError(
                f"{element.where} {element.key} is taken by {owner!r}", f"{element.owner!r} cannot have it too"
            )
        return owner is not None

    def _insert(self, elements: list[Element]) -> None:
        commands = "\n".join(self._command("add", element) for element in elements)
        try:
            self._nftables.run(commands)
        except NftablesError as error:
            if "No such file or directory" not in error.message:
                raise
            known = [self._command("add", element) for element in self.recall() if element not in elements]
            self._nftables.run("\n".join([ruleset(self.table), *known, commands]))

    def _command(self, verb: str, element: Element) -> str:
        # To delete, the key says it all, and the comment must not be there.
        text = str(element) if verb == "add" else element.key
        return f"{verb} element inet {self.table} {element.where} {{ {text} }}"


def _parse_elements(listed: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    start = listed.find("elements = {")
    if start < 0:
        return found
    for item in listed[start + len("elements = {") : listed.index("}", start)].split(","):
        key, _, rest = item.strip().partition(" comment ")
        comment = _COMMENT.search(f"comment {rest}")
        found.append((key.partition(" : ")[0].strip(), comment.group(1) if comment else ""))
    return found
