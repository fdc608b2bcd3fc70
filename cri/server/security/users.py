"""Who a container runs as: the request and the image's USER, looked up in the image's own passwd(5) and group(5).

A number that is out of range is an error and never becomes a name to look up, and a name is never read as a number:
both confusions have turned an unprivileged user into root (CVE-2024-40635, CVE-2026-46680). Both files are read with
a limit (CVE-2026-47262), from the image's layers only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest
from cri.server.image_files import read_image_file

#: Kubernetes' own limit for uids and gids; the kernel allows twice as many, but tools print those as negative.
MAX_ID = (1 << 31) - 1
FILE_LIMIT = 1 << 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?")


@dataclass(frozen=True, slots=True)
class Account:
    """A line of passwd."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class Group:
    """A line of group."""

    name: str
    gid: int
    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class Accounts:
    """Both files of one image."""

    users: tuple[Account, ...]
    groups: tuple[Group, ...]

    def by_name(self, name: str) -> Account | None:
        return next((user for user in self.users if user.name == name), None)

    def by_uid(self, uid: int) -> Account | None:
        return next((user for user in self.users if user.uid == uid), None)

    def groups_of(self, name: str) -> list[int]:
        return [group.gid for group in self.groups if name in group.members]


@dataclass(frozen=True, slots=True)
class Identity:
    """What the first process gets: ids inside the container, the supplementary groups, and $HOME."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def read_accounts(layers: Sequence[str]) -> Accounts:
    """The accounts of an image given by its overlay layers, topmost first; an absent file has no lines.

    Raises OSError for a file that is too large or no file. Blocks.
    """
    passwd = read_image_file(layers, "/etc/passwd", FILE_LIMIT) or b""
    group = read_image_file(layers, "/etc/group", FILE_LIMIT) or b""
    return Accounts(tuple(_users(passwd)), tuple(_groups(group)))


def _users(data: bytes) -> list[Account]:
    users = []
    for fields in _lines(data, 7):
        uid, gid = _number(fields[2]), _number(fields[3])
        if fields[0] and uid is not None and gid is not None:
            users.append(Account(fields[0], uid, gid, fields[5]))
    return users


def _groups(data: bytes) -> list[Group]:
    groups = []
    for fields in _lines(data, 4):
        gid = _number(fields[2])
        if fields[0] and gid is not None:
            groups.append(Group(fields[0], gid, frozenset(filter(None, fields[3].split(",")))))
    return groups


def _lines(data: bytes, fields: int) -> list[list[str]]:
    split = (line.split(":") for line in data.decode("utf-8", "replace").split("\n"))
    return [parts for parts in split if len(parts) >= fields]


def _number(text: str) -> int | None:
    """A decimal id in range, or None; int() alone would accept '+0', ' 0', '0_0' and other scripts' digits."""
    if text.isascii() and text.isdecimal() and int(text[:11]) <= MAX_ID and len(text) <= 11:
        return int(text)
    return None


def split_image_user(text: str) -> tuple[str, str]:
    """USER of an image config, 'user[:group]', as its two halves, each '' when absent."""
    user, _, group = text.partition(":")
    return user, group


def image_uid(text: str) -> int | None:
    """The uid that an image's USER names as a number; None when it is a name."""
    return _number(split_image_user(text)[0])


def resolve_identity(accounts: Accounts, context: api.LinuxContainerSecurityContext, image_user: str) -> Identity:
    """The identity of a container; raises InvalidRequest for what the interface forbids or the image does not have."""
    user, group = _requested(context) or split_image_user(image_user)
    uid, account = _find_user(accounts, user or "0")
    gid = _find_group(accounts, group) if group else account.gid if account else 0
    wanted = [_in_range(number, "supplemental group") for number in context.supplemental_groups]
    if context.supplemental_groups_policy not in api.SupplementalGroupsPolicy.values():
        raise InvalidRequest(
            f"supplemental_groups_policy {context.supplemental_groups_policy} is neither Merge nor Strict"
        )
    if context.supplemental_groups_policy == api.Merge and account:
        wanted = accounts.groups_of(account.name) + wanted
    # Without its primary group in the list a process could shed a group that a file denies (CVE-2022-2995).
    groups = tuple(dict.fromkeys([gid, *wanted]))
    return Identity(uid, gid, groups, _home(account))


def _requested(context: api.LinuxContainerSecurityContext) -> tuple[str, str] | None:
    """run_as_* of the request in the form of an image's USER, or None when it leaves that to the image."""
    by_id, by_name = context.HasField("run_as_user"), bool(context.run_as_username)
    if by_id and by_name:
        raise InvalidRequest("run_as_user and run_as_username are both set; the interface allows one of them")
    group = ""
    if context.HasField("run_as_group"):
        if not (by_id or by_name):
            raise InvalidRequest("run_as_group is set without run_as_user or run_as_username; set one of them too")
        group = str(_in_range(context.run_as_group.value, "run_as_group"))
    if by_id:
        return str(_in_range(context.run_as_user.value, "run_as_user")), group
    if by_name:
        if not _NAME.fullmatch(context.run_as_username):
            raise InvalidRequest(
                f"run_as_username {context.run_as_username[:80]!r} is no user name; use run_as_user for ids"
            )
        return context.run_as_username, group
    return None


def _in_range(number: int, what: str) -> int:
    if not 0 <= number <= MAX_ID:
        raise InvalidRequest(f"{what} {number} is outside 0..{MAX_ID}")
    return number


def _find_user(accounts: Accounts, text: str) -> tuple[int, Account | None]:
    if (uid := _number(text)) is not None:
        return uid, accounts.by_uid(uid)
    if not _NAME.fullmatch(text):
        raise InvalidRequest(
            f"user {text[:80]!r} is neither a number in 0..{MAX_ID} nor a user name; correct the image's USER"
        )
    if (account := accounts.by_name(text)) is None:
        raise InvalidRequest(f"user {text!r} is not in /etc/passwd of the image; name one that is, or set run_as_user")
    return account.uid, account


def _find_group(accounts: Accounts, text: str) -> int:
    if (gid := _number(text)) is not None:
        return gid
    found = next((group.gid for group in accounts.groups if group.name == text), None)
    if found is None or not _NAME.fullmatch(text):
        raise InvalidRequest(f"group {text[:80]!r} is neither a number in 0..{MAX_ID} nor in /etc/group of the image")
    return found


def _home(account: Account | None) -> str:
    # A control character here would forge further environment lines in whatever prints or parses them (CVE-2022-4318).
    if account and account.home.startswith("/") and account.home.isprintable():
        return account.home
    return "/"
