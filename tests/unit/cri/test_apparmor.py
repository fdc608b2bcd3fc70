"""Which AppArmor profile a request comes to, on a kernel that has AppArmor and on one that has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cri.proto import api_pb2 as api
from cri.server.errors import CriFault, InvalidRequest, NotFound, WrongState
from cri.server.security import apparmor
from cri.server.security.apparmor import DEFAULT, AppArmor

Profile = api.SecurityProfile
LOADED = "nodeagent-default (enforce)\nweb profile (complain)\nstrict (enforce)\n"


@pytest.fixture
def host(tmp_path: Path) -> AppArmor:
    (tmp_path / "profiles").write_text(LOADED)
    return AppArmor(enabled=True, directory=tmp_path)


def context(**fields: Any) -> api.LinuxContainerSecurityContext:
    return api.LinuxContainerSecurityContext(**fields)


def named(name: str, kind: Profile.ProfileType = Profile.Localhost) -> dict[str, Any]:
    return {"apparmor": {"profile_type": kind, "localhost_ref": name}}


DEFAULTS: list[dict[str, Any]] = [
    {},
    {"apparmor": {"profile_type": Profile.RuntimeDefault}},
    {"apparmor_profile": "runtime/default"},
]


@pytest.mark.parametrize("fields", DEFAULTS)
async def test_the_default_profile(host: AppArmor, fields: dict[str, Any]) -> None:
    assert await host.profile_of(context(**fields)) == DEFAULT
    assert await host.profile_of(context(privileged=True, **fields)) == ""


@pytest.mark.parametrize(
    "fields", [named("strict"), named("localhost/strict"), {"apparmor_profile": "localhost/strict"}]
)
async def test_a_profile_of_the_node(host: AppArmor, fields: dict[str, Any]) -> None:
    assert await host.profile_of(context(**fields)) == "strict"
    assert await host.profile_of(context(privileged=True, **fields)) == "strict"  # asked for by name: peers apply it


async def test_the_field_comes_before_the_string(host: AppArmor) -> None:
    both = context(apparmor={"profile_type": Profile.Unconfined}, apparmor_profile="localhost/strict")
    assert await host.profile_of(both) == ""
    assert await host.profile_of(context(apparmor_profile="unconfined")) == ""


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        (named("missing"), NotFound, "'missing' is not loaded.*apparmor_parser -r"),
        (named("stric"), NotFound, "not loaded"),
        (named(""), InvalidRequest, "localhost_ref"),
        (named("two words"), InvalidRequest, "localhost_ref"),
        (named("a\nexec b"), InvalidRequest, "localhost_ref"),
        (named("x", Profile.RuntimeDefault), InvalidRequest, "profile_type is not Localhost"),
        ({"apparmor_profile": "strict"}, InvalidRequest, "apparmor_profile 'strict'"),
        ({"apparmor_profile": "localhost/"}, InvalidRequest, "localhost_ref"),
    ],
)
async def test_what_is_refused(host: AppArmor, fields: dict[str, Any], error: type[CriFault], words: str) -> None:
    with pytest.raises(error, match=words):
        await host.profile_of(context(**fields))


async def test_without_apparmor_only_a_name_is_refused(tmp_path: Path) -> None:
    host = AppArmor(enabled=False, directory=tmp_path)
    for fields in [*DEFAULTS, {"apparmor_profile": "unconfined"}]:
        assert await host.profile_of(context(**fields)) == ""
    with pytest.raises(WrongState, match=r"'strict'.*without AppArmor"):
        await host.profile_of(context(**named("strict")))


@pytest.mark.parametrize("before", ["", f"{DEFAULT} (enforce)\n"], ids=["none", "an older one"])
async def test_the_default_profile_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    """The parser is a stand-in here: it stores what it is given, and lists it as the kernel would."""
    (tmp_path / "profiles").write_text(before)
    parser = tmp_path / "apparmor_parser"
    parser.write_text(
        '#!/bin/sh\n[ "$1" = -Kr ] || exit 1\n'
        f'cat > {tmp_path}/text\necho "{DEFAULT} (enforce)" > {tmp_path}/profiles\n'
    )
    parser.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    host = AppArmor(enabled=True, directory=tmp_path)
    assert await host.profile_of(context()) == DEFAULT
    assert (tmp_path / "text").read_text() == apparmor.PROFILE
    (tmp_path / "text").unlink()
    assert await host.profile_of(context()) == DEFAULT
    assert not (tmp_path / "text").exists()
    (tmp_path / "profiles").write_text("")
    parser.write_text("#!/bin/sh\ncat > /dev/null\necho syntax error >&2\nexit 1\n")
    with pytest.raises(WrongState, match="syntax error"):
        await host.profile_of(context())
    parser.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await host.profile_of(context()) == ""
