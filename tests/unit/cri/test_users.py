"""Who a container runs as: numbers stay numbers, names stay names, and nothing becomes root by accident."""

from __future__ import annotations

import pytest

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest
from cri.server.security.users import Accounts, image_uid, read_accounts, resolve_identity

PASSWD = """root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
app:x:1000:1000::/home/app:/bin/sh
2147483648:x:0:0::/root:/bin/sh
99999999999:x:0:0::/root:/bin/sh
0x0:x:0:0::/root:/bin/sh
-1:x:0:0::/root:/bin/sh
+0:x:0:0::/root:/bin/sh
 0:x:0:0::/root:/bin/sh
evil:x:1001:1001::/home\x01/x:/bin/sh
huge:x:4294967296:0::/root:/bin/sh
broken line
"""
GROUP = """root:x:0:
users:x:100:app,www-data
audio:x:29:app
app:x:1000:
"""


@pytest.fixture
def accounts(tmp_path) -> Accounts:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return read_accounts([str(tmp_path)])


def context(**fields: object) -> api.LinuxContainerSecurityContext:
    for name in ("run_as_user", "run_as_group"):
        if name in fields:
            fields[name] = api.Int64Value(value=fields[name])
    return api.LinuxContainerSecurityContext(**fields)


@pytest.mark.parametrize(
    ("image_user", "expected"),
    [
        ("", (0, 0, (0,), "/root")),
        ("0", (0, 0, (0,), "/root")),
        ("app", (1000, 1000, (1000, 100, 29), "/home/app")),
        ("1000", (1000, 1000, (1000, 100, 29), "/home/app")),
        ("1003:users", (1003, 100, (100,), "/")),
        ("www-data:100", (33, 100, (100,), "/var/www")),
        ("4242", (4242, 0, (0,), "/")),
        ("2147483647", (2147483647, 0, (0,), "/")),
        ("evil", (1001, 1001, (1001,), "/")),
    ],
)
def test_the_images_user(accounts: Accounts, image_user: str, expected: tuple[object, ...]) -> None:
    identity = resolve_identity(accounts, context(), image_user)
    assert (identity.uid, identity.gid, identity.groups, identity.home) == expected


@pytest.mark.parametrize(
    "user",
    ["2147483648", "4294967296", "99999999999", "0x0", "-1", "+0", " 0", "0 ", "1_0", "٠", "nobody", "huge", "1000:-1"],
)
def test_what_is_no_user_never_becomes_one(accounts: Accounts, user: str) -> None:
    """CVE-2024-40635 and CVE-2026-46680: the passwd above maps each of these names to root."""
    with pytest.raises(InvalidRequest):
        resolve_identity(accounts, context(), user)


def test_the_request_overrules_the_image(accounts: Accounts) -> None:
    assert resolve_identity(accounts, context(run_as_user=1000), "root").gid == 1000
    assert resolve_identity(accounts, context(run_as_user=1000, run_as_group=7), "root").groups == (7, 100, 29)
    assert resolve_identity(accounts, context(run_as_username="www-data"), "0").uid == 33


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"run_as_group": 5}, "without run_as_user"),
        ({"run_as_user": 1, "run_as_username": "app"}, "both set"),
        ({"run_as_user": -1}, "outside"),
        ({"run_as_user": 1 << 32}, "outside"),
        ({"run_as_username": "nobody"}, "not in /etc/passwd"),
        ({"run_as_username": "0"}, "no user name"),
        ({"supplemental_groups": [1 << 31]}, "outside"),
    ],
)
def test_requests_that_contradict_themselves(accounts: Accounts, fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        resolve_identity(accounts, context(**fields), "")


def test_supplemental_groups_policy(accounts: Accounts) -> None:
    merged = context(run_as_user=1000, supplemental_groups=[29, 60000])
    strict = context(run_as_user=1000, supplemental_groups=[29, 60000], supplemental_groups_policy=api.Strict)
    assert resolve_identity(accounts, merged, "").groups == (1000, 100, 29, 60000)
    assert resolve_identity(accounts, strict, "").groups == (1000, 29, 60000)


@pytest.mark.parametrize(("user", "uid"), [("1002", 1002), ("0:0", 0), ("app", None), ("-1", None), ("", None)])
def test_the_uid_of_an_image_is_a_number_or_nothing(user: str, uid: int | None) -> None:
    assert image_uid(user) == uid


def test_an_oversized_passwd_is_refused(tmp_path) -> None:
    """CVE-2026-47262: a sparse file of 8 GiB costs its image nothing."""
    (tmp_path / "etc").mkdir()
    with (tmp_path / "etc/passwd").open("wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(OSError, match="limit"):
        read_accounts([str(tmp_path)])
