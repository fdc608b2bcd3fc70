"""What crid owes the containers of external runtimes: sources of mounts, hooks, descriptors, logs, the runtime itself.

Whether such a runtime falls for a hostile image is its own affair; what it is given by us is ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from images.build import regular, symlink
from tests.escapes.conftest import EXTERNAL, Forge
from tests.support.attacker import said
from tests.support.crid import Crid, Sandbox

THING = "vendor.example/thing"


@pytest.fixture(params=EXTERNAL)
def handler(request: pytest.FixtureRequest) -> str:
    return installed(str(request.param))


@pytest.fixture(params=["", *EXTERNAL])
def any_handler(request: pytest.FixtureRequest) -> str:
    """The built-in runtime too."""
    return installed(str(request.param))


def installed(name: str) -> str:
    if name and not os.access(EXTERNAL[name], os.X_OK):
        pytest.skip(f"{name} is not installed (Debian: {name})")
    return name


async def run_pod(crid: Crid, handler: str) -> Sandbox:
    config = crid.pod_config()
    request = api.RunPodSandboxRequest(config=config, runtime_handler=handler)
    return (await crid.cri.RunPodSandbox(request)).pod_sandbox_id, config


async def test_a_source_that_becomes_a_link_after_the_look(
    crid: Crid, hostile: str, handler: str, canary: Path, tmp_path: Path
) -> None:
    """K1, CVE-2021-25741: an external runtime would walk the path again, by its name."""
    pod = await run_pod(crid, handler)
    (tmp_path / "v/sub").mkdir(parents=True)
    id = await crid.create(
        pod, hostile, ["ls", "/v"], mounts=[{"host_path": str(tmp_path / "v/sub"), "container_path": "/v"}]
    )
    (tmp_path / "v/sub").rmdir()
    (tmp_path / "v/sub").symlink_to(canary)
    with pytest.raises(CriError, match="no link in it when the container was created"):
        await crid.cri.StartContainer(container_id=id)


async def test_volumes_are_what_they_were_looked_at_as(crid: Crid, hostile: str, handler: str, tmp_path: Path) -> None:
    """Files and directories, with their mounts' options."""
    (tmp_path / "file").write_text("of a file")
    (tmp_path / "directory").mkdir()
    pod = await run_pod(crid, handler)
    mounts = [
        api.Mount(host_path=str(tmp_path / "file"), container_path="/f", readonly=True),
        api.Mount(host_path=str(tmp_path / "directory"), container_path="/d"),
    ]
    id = await crid.run(pod, hostile, ["sleep", "100"], mounts=mounts)
    assert (await crid.exec(id, "sh", "-c", "cat /f; echo x > /d/new; echo y > /f"))[1:] == (
        "of a file",
        "sh: can't create /f: Read-only file system\n",
    )
    assert (tmp_path / "directory/new").read_text() == "x\n"


async def test_hooks_have_nothing_of_the_image_around_them(
    crid: Crid, forge: Forge, handler: str, specifications: Path, tmp_path: Path
) -> None:
    """V1, CVE-2025-23266: a hook of a CDI device, run by the node's root, with LD_PRELOAD of the image."""
    hooks = [
        {
            "hookName": name,
            "path": "/bin/sh",
            "args": ["sh", "-c", f"env > {tmp_path}/{name}; pwd >> {tmp_path}/{name}"],
        }
        for name in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    ]
    device = {"name": "one", "containerEdits": {"hooks": hooks}}
    document = {"cdiVersion": "1.0.0", "kind": THING, "devices": [device]}
    (specifications / "thing.json").write_text(json.dumps(document))
    poison = ["LD_PRELOAD=/evil.so", "LD_AUDIT=/evil.so", "BASH_ENV=/evil", "ENV=/evil", "PATH=/evil"]
    image = await forge.image([regular("evil.so", b"", 0o755)], Env=poison)
    pod = await run_pod(crid, handler)
    id = await crid.run(pod, image, ["/bin/sleep", "100"], CDI_devices=[api.CDIDevice(name=f"{THING}=one")])
    await crid.cri.StopContainer(container_id=id)
    await crid.cri.RemoveContainer(container_id=id)
    (specifications / "thing.json").unlink()
    ran = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert {"prestart", "createRuntime", "poststop"} <= ran.keys()
    assert not [text for text in ran.values() if "evil" in text], ran


async def test_descriptors_and_environment_of_the_runtime(crid: Crid, hostile: str, handler: str) -> None:
    """R10, CVE-2024-21626, also with what a runtime would keep for itself; the first process and an exec."""
    pod = await run_pod(crid, handler)
    script = "ls /proc/self/fd; env | cut -d= -f1 | sort; echo end; exec sleep 100"
    id = await crid.run(pod, hostile, ["sh", "-c", script])
    first = (await said(crid, pod, "end")).split()
    listed = (await crid.exec(id, "sh", "-c", "ls /proc/self/fd; env | cut -d= -f1 | sort; echo end"))[1].split()
    assert first[:4] == listed[:4] == ["0", "1", "2", "3"]  # ls has the directory open
    assert set(first[4:]) == set(listed[4:]) == {"HOME", "HOSTNAME", "PATH", "PWD", "SHLVL", "end"}
    fds = list(Path(f"/proc/{await crid.pid_of(id)}/fd").iterdir())
    assert sorted(fd.name for fd in fds) == ["0", "1", "2"]


async def test_working_directories_by_number(crid: Crid, hostile: str, handler: str) -> None:
    """R10 once more: none of our own directories is left open for the runtime to pass on."""
    pod = await run_pod(crid, handler)
    for number in (3, 4, 5, 6, 7, 8, 9, 10):
        with pytest.raises(CriError):
            await crid.run(pod, hostile, ["ls"], working_dir=f"/proc/self/fd/{number}", name=f"n{number}")


@pytest.mark.parametrize("kind", ["link", "fifo"])
async def test_a_log_that_somebody_has_replaced(
    crid: Crid, hostile: str, handler: str, canary: Path, kind: str
) -> None:
    """C16: the log is ours, whoever makes the container."""
    pod = await run_pod(crid, handler)
    log = Path(pod[1].log_directory, "main.log")
    log.symlink_to(canary / "file") if kind == "link" else os.mkfifo(log)
    with pytest.raises(CriError):
        await crid.run(pod, hostile, ["echo", "text"])


async def test_variables_without_a_value_are_not_the_hosts(crid: Crid, forge: Forge, any_handler: str) -> None:
    """P4, CVE-2026-57231: a name alone, in an image's environment, was filled in from the engine's own."""
    names = ["SHELL", "LANG", "USER", "PYTHONPATH", "CRID_FAILPOINTS", "HOSTS_OWN"]
    image = await forge.image(Env=["PATH=/bin", *names])
    id = await crid.run(await run_pod(crid, any_handler), image, ["sleep", "100"])
    assert crid.process is not None
    own = Path(f"/proc/{crid.process.pid}/environ").read_bytes().split(b"\0")
    given = Path(f"/proc/{await crid.pid_of(id)}/environ").read_bytes().split(b"\0")
    kept = {line for line in given if line.partition(b"=")[0] not in (b"PATH", b"HOME")}
    assert not [line for line in kept if line.partition(b"=")[2] and line in own]
    assert b"HOSTS_OWN=" in kept


@pytest.mark.parametrize("place", ["/link/new", "/link/../../new", "/up/new", "/loop/x"])
async def test_a_working_directory_through_a_link(
    crid: Crid, forge: Forge, canary: Path, any_handler: str, place: str
) -> None:
    """P3, CVE-2026-55686: it was made, and given away, where a link of the image led on the host."""
    links = [symlink("link", str(canary)), symlink("up", f"../../../../../..{canary}"), symlink("loop", "/loop")]
    image = await forge.image(links, WorkingDir=place)
    pod = await run_pod(crid, any_handler)
    try:
        id = await crid.run(pod, image, ["sleep", "100"])
    except CriError:
        return  # the canary is looked at afterwards
    assert (
        Path(f"/proc/{await crid.pid_of(id)}/cwd").stat().st_dev
        == Path(f"/proc/{await crid.pid_of(id)}/root").stat().st_dev
    )


async def test_containers_of_one_image_have_their_own_environment(crid: Crid, hostile: str) -> None:
    """C24, CVE-2021-21334: variables of one container in another one, that was made of the same image beside it."""
    pod = await crid.run_pod()

    async def run(number: int) -> tuple[int, bytes]:
        secret = api.KeyValue(key=f"SECRET_{number}", value=b"%d" % number)
        id = await crid.run(pod, hostile, ["sleep", "100"], envs=[secret], name=f"n{number}")
        return number, Path(f"/proc/{await crid.pid_of(id)}/environ").read_bytes()

    for number, environment in await asyncio.gather(*map(run, range(12))):
        assert re.findall(rb"SECRET_(\d+)=(\d+)", environment) == [(b"%d" % number, b"%d" % number)]
