"""Who a container runs as: what images write into USER, passwd and group, and what requests ask for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from images.build import LayerFile, directory, regular, symlink
from tests.escapes.conftest import Forge
from tests.support.attacker import security
from tests.support.crid import Crid
from tests.support.tars import raw_entry, tar

NO_USERS = (
    "2147483648",
    "4294967296",
    "99999999999",
    "0x0",
    "-1",
    "+0",
    " 0",
    "0 ",
    "1_0",
    "\u0660",
    "huge",
    "1000:-1",
)
FIFO = b"6"


def root_aliases() -> LayerFile:
    """A passwd that makes root of each name, for whoever looks numbers up as names."""
    names = [user.partition(":")[0] for user in NO_USERS]
    return regular("etc/passwd", "".join(f"{name}:x:0:0::/root:/bin/sh\n" for name in names).encode())


@pytest.mark.parametrize("user", NO_USERS)
async def test_what_is_no_user_does_not_become_root(crid: Crid, forge: Forge, user: str) -> None:
    """C11, R16: CVE-2024-40635, CVE-2026-46680, CVE-2026-30892."""
    image = await forge.image([root_aliases()], User=user)
    pod = await crid.run_pod()
    try:
        id = await crid.run(pod, image, ["sleep", "100"])
    except CriError as refused:
        assert refused.code == "INVALID_ARGUMENT"
        return
    assert user == "huge" and (await crid.exec(id, "id", "-u"))[1] == "0\n", "only a name may be looked up as a name"


@pytest.mark.parametrize("user", [-1, 1 << 31, 1 << 32, (1 << 63) - 1])
async def test_ids_of_requests_do_not_wrap(crid: Crid, hostile: str, user: int) -> None:
    pod = await crid.run_pod()
    for context in (
        {"run_as_user": {"value": user}},
        {"run_as_user": {"value": 1}, "run_as_group": {"value": user}},
        {"supplemental_groups": [user]},
    ):
        with pytest.raises(CriError) as refused:
            await crid.create(pod, hostile, ["true"], linux=security(**context))
        assert refused.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("name", ["0", "+0", "root\n", "root:x", "../root", "a\0b", " root", "no-such-user"])
async def test_names_of_requests_are_names(crid: Crid, hostile: str, name: str) -> None:
    """R16, O3: CVE-2022-4318."""
    with pytest.raises(CriError) as refused:
        await crid.create(await crid.run_pod(), hostile, ["true"], linux=security(run_as_username=name))
    assert refused.value.code == "INVALID_ARGUMENT"


async def test_a_home_with_a_newline_adds_no_line(crid: Crid, forge: Forge) -> None:
    """O3, CVE-2022-4318: neither a variable of the environment nor a line of any passwd."""
    text = "u:x:1000:1000::/h\x0bPATH=/evil:/bin/sh\nv:x:1001:1001::/h\rX=1:/bin/sh\n"
    image = await forge.image([regular("etc/passwd", text.encode())], User="u", Env=["PATH=/bin", "HOME="])
    pod = await crid.run_pod()
    home = api.KeyValue(key="HOME", value=b"/x\nroot:x:0:0::/:/bin/sh")
    id = await crid.run(pod, image, ["sleep", "100"], envs=[home])
    assert (await crid.exec(id, "cat", "/etc/passwd"))[1] == text
    assert (await crid.exec(id, "id", "-u"))[1] == "1000\n"
    other = await crid.run(pod, image, ["sleep", "100"], name="other")
    assert (await crid.exec(other, "sh", "-c", "echo $HOME $PATH"))[1] == "/ /bin\n"


@pytest.mark.parametrize("policy", [api.Merge, api.Strict])
async def test_a_group_that_a_file_denies_is_not_shed(crid: Crid, forge: Forge, policy: int) -> None:
    """C10: CVE-2023-25173, CVE-2022-2995. A file of mode 604 denies its group what all others may read."""
    files = [
        regular("etc/passwd", b"u:x:1000:500::/:/bin/sh\n"),
        regular("etc/group", b"denied:x:500:\nalso:x:501:u\n"),
        regular("secret", b"text", 0o604, gid=500),
        regular("also", b"text", 0o604, gid=501),
    ]
    image = await forge.image(files, User="u")
    linux = security(supplemental_groups=[77], supplemental_groups_policy=policy)
    id = await crid.run(await crid.run_pod(), image, ["sleep", "100"], linux=linux)
    groups = {"500", "77", *(["501"] if policy == api.Merge else [])}
    assert set((await crid.exec(id, "id", "-G"))[1].split()) == groups
    assert "denied" in (await crid.exec(id, "cat", "/secret"))[2].lower()
    assert bool((await crid.exec(id, "cat", "/also"))[0]) == (policy == api.Merge)


@pytest.mark.parametrize("kind", ["sparse", "link", "fifo", "device", "driver", "directory", "loop"])
async def test_a_passwd_that_is_no_small_file(crid: Crid, forge: Forge, canary: Path, kind: str) -> None:
    """C18, C21: CVE-2026-47262, CVE-2025-4437, CVE-2024-9676. Nothing of the host is read, nothing is waited for."""
    layers = {
        "sparse": tar(raw_entry(b"etc/passwd", b"0", bytes(3 << 20))),
        "link": [symlink("etc/passwd", f"../../../../../..{canary}/file")],
        "fifo": tar(raw_entry(b"etc/passwd", FIFO)),
        "device": tar(raw_entry(b"etc/passwd", b"3", device=(1, 5))),
        "driver": tar(raw_entry(b"etc/passwd", b"3", device=(240, 77))),  # for experiments: nobody serves it
        "directory": [directory("etc/passwd")],
        "loop": [symlink("etc/passwd", "group"), symlink("etc/group", "passwd")],
    }
    image = await forge.image(layers[kind], User="app")
    started = time.monotonic()
    with pytest.raises(CriError) as refused:
        await crid.create(await crid.run_pod(), image, ["true"])
    assert time.monotonic() - started < 5
    assert "No such device" not in str(refused.value), "opened, where a look was enough"
    assert "untouched" not in str(refused.value)


async def test_the_user_of_a_request_holds_at_every_start(crid: Crid, hostile: str) -> None:
    """K2, CVE-2019-11245: also for the second and third attempt, and for an image that was there before."""
    pod = await crid.run_pod()
    for attempt in range(3):
        metadata = api.ContainerMetadata(name="main", attempt=attempt)
        linux = security(run_as_user={"value": 4242})
        id = await crid.run(pod, hostile, ["sh", "-c", "sleep 100"], metadata=metadata, linux=linux)
        assert (await crid.exec(id, "id", "-u"))[1] == "4242\n"
        assert Path(f"/proc/{await crid.pid_of(id)}/status").read_text().count("\t4242") >= 4
        await crid.cri.RemoveContainer(container_id=id)
