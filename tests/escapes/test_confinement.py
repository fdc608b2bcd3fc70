"""What a container's processes may ask of the kernel, the first one and those of execs alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from images.build import regular, symlink
from tests.escapes.conftest import Forge
from tests.support.attacker import DEFAULT_SECCOMP, capabilities, said, security
from tests.support.crid import Crid

ENOSYS = "38"
PRIVATE = ("/proc/timer_list", "/proc/keys", "/proc/kcore", "/proc/interrupts", "/proc/latency_stats")
FIXED = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/shmmax",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/sys/power/state",
    "/sys/kernel/uevent_helper",
    "/sys/module/kernel/parameters/panic",
)


def refusals(listing: str) -> dict[str, str]:
    return dict(line.split() for line in listing.splitlines() if " " in line)


@pytest.mark.parametrize("no_new_privs", [False, True])
async def test_system_calls_that_a_container_has_no_use_for(crid: Crid, hostile: str, no_new_privs: bool) -> None:
    """R19: CVE-2022-0185 (fsconfig), CVE-2024-1086 (user namespaces), AF_ALG, AF_VSOCK, io_uring, bpf, keyrings."""
    pod = await crid.run_pod()
    linux = security(seccomp=DEFAULT_SECCOMP, no_new_privs=no_new_privs)
    first = await crid.run(pod, hostile, ["sh", "-c", "attacker calls; echo end; sleep 100"], linux=linux)
    of_the_first = refusals(await said(crid, pod, "end"))
    of_an_exec = refusals((await crid.exec(first, "attacker", "calls"))[1])
    assert of_the_first == of_an_exec
    assert len(of_an_exec) > 25
    assert {name for name, error in of_an_exec.items() if error == "0"} == set()
    # A C library falls back from a call that does not exist, and gives up on one that is forbidden.
    assert {name for name, error in of_an_exec.items() if error == ENOSYS} == {"clone3", "nonexistent"}


@pytest.mark.parametrize("profile", [DEFAULT_SECCOMP, api.SecurityProfile(profile_type=1)])
async def test_an_exec_is_confined_like_the_first_process(
    crid: Crid, hostile: str, profile: api.SecurityProfile
) -> None:
    """R7: CVE-2022-29162, -27650, -27652, -24769: no inheritable capabilities; the filter and no_new_privs hold too."""
    linux = security(seccomp=profile, no_new_privs=True, capabilities=api.Capability(drop_capabilities=["NET_RAW"]))
    pod = await crid.run_pod()
    script = "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status"
    first = await crid.run(pod, hostile, ["sh", "-c", f"{script}; echo end; sleep 100"], linux=linux)
    expected = (await said(crid, pod, "end")).splitlines()[:-1]
    words = dict(line.split() for line in expected)
    assert int(words["CapInh:"], 16) == int(words["CapAmb:"], 16) == 0
    assert not int(words["CapBnd:"], 16) >> 13 & 1
    assert (words["NoNewPrivs:"], words["Seccomp:"]) == ("1", "0" if profile.profile_type else "2")
    assert (await crid.exec(first, "sh", "-c", script))[1].splitlines() == expected


async def test_an_empty_name_of_a_profile_is_no_profile(crid: Crid, hostile: str) -> None:
    """K5, CVE-2023-2431."""
    linux = security(seccomp=api.SecurityProfile(profile_type=2, localhost_ref=""))
    with pytest.raises(CriError, match="localhost_ref is empty"):
        await crid.create(await crid.run_pod(), hostile, ["true"], linux=linux)


async def test_what_tells_of_the_host_is_covered(crid: Crid, hostile: str) -> None:
    """C19, GHSA-7ww5-4wqc-m92c (power readings) and the usual masks, in an exec as in the first process."""
    id = await crid.run(
        await crid.run_pod(), hostile, ["sleep", "100"], linux=capabilities("DAC_READ_SEARCH", "SYSLOG")
    )
    script = f"cat {' '.join(PRIVATE)} | wc -c; ls /sys/firmware /sys/devices/virtual/powercap /proc/acpi | grep -v :"
    shown = (await crid.exec(id, "sh", "-c", f"({script}) 2>/dev/null"))[1]
    assert shown.split() == ["0"]


async def test_settings_of_the_host_are_read_only(crid: Crid, hostile: str) -> None:
    """R14, CVE-2025-52881, and the reason for readonlyPaths."""
    id = await crid.run(await crid.run_pod(), hostile, ["sleep", "100"])
    for path in FIXED:
        code, _, error = await crid.exec(id, "sh", "-c", f"echo 1 > {path}")
        assert code and ("Read-only" in error or "ermission" in error or "nonexistent" in error), (path, error)


async def test_devices_that_were_not_given(crid: Crid, hostile: str) -> None:
    """Nodes can be made (mknod(2) is allowed by default), but not opened: disks, memory, kernel log, FUSE, ports."""
    id = await crid.run(await crid.run_pod(), hostile, ["sleep", "100"])
    for name, kind, major, minor in (
        ("disk", "b", 254, 0),
        ("mem", "c", 1, 1),
        ("kmsg", "c", 1, 11),
        ("fuse", "c", 10, 229),
        ("port", "c", 1, 4),
        ("loop", "b", 7, 0),
    ):
        code, out, error = await crid.exec(id, "sh", "-c", f"mknod /{name} {kind} {major} {minor} && head -c 1 /{name}")
        assert code and out == "" and "not permitted" in error, (name, error)


async def test_a_hostile_interpreters_environment(crid: Crid, forge: Forge, canary: Path) -> None:
    """R20, CVE-2019-14271 in Python's form: what our interpreter would read, had it been started in the image.

    That nothing at all is opened there is shown with strace in tests/kernel/runtime/test_hostile_root.py.
    """
    poison = f"open('{canary}/poisoned', 'w')".encode()
    places = [
        f"usr/lib/python3.{minor}/{name}"
        for minor in (11, 12, 13)
        for name in ("sitecustomize.py", "encodings/__init__.py", "codecs.py", "os.py", "json/__init__.py")
    ]
    libraries = ["lib/x86_64-linux-gnu/libnss_files.so.2", "etc/ld.so.preload", "etc/locale.alias", "etc/nsswitch.conf"]
    layer = [regular(place, poison, 0o755) for place in (*places, *libraries)]
    image = await forge.image(
        layer, Env=["PATH=/bin", "PYTHONHOME=/usr", "PYTHONPATH=/usr/lib/python3.11", "LD_PRELOAD=/etc/ld.so.preload"]
    )
    pod = await crid.run_pod()
    id = await crid.run(pod, image, ["sleep", "100"], linux=security(run_as_username="root"))
    assert (await crid.exec(id, "sh", "-c", "exit 5"))[0] == 5
    assert "not found" in await crid.exec_fails(id, "no-such-program")


async def test_a_program_that_is_its_own_interpreter(crid: Crid, forge: Forge, canary: Path) -> None:
    """R1, CVE-2019-5736: the entry point leads to /proc/self/exe, while others write to whatever it may be."""
    image = await forge.image([regular("bin/self", b"#!/proc/self/exe\n", 0o755)])
    pod = await crid.run_pod()
    with pytest.raises(CriError):
        await crid.run(pod, image, ["self"])
    attacker = await crid.run(pod, image, ["attacker", "overwrite"], linux=capabilities("SYS_PTRACE"), name="overwrite")
    await said(crid, pod, "ready", "overwrite")
    for _ in range(20):
        await crid.exec_fails(attacker, "self")
        await crid.exec(attacker, "true")
    written = {line.split()[1] for line in crid.log_of(pod[1], "overwrite").splitlines() if "WRITABLE" in line}
    assert not [path for path in written if "python" in path], written


@pytest.mark.parametrize("privileged", [False, True])
async def test_descriptors_of_the_runtime(crid: Crid, hostile: str, privileged: bool) -> None:
    """R10, and what else could come along: sockets, timers, cgroups, other containers' pipes."""
    sandbox_context = api.LinuxSandboxSecurityContext(privileged=privileged)
    pod = await crid.run_pod(linux=api.LinuxPodSandboxConfig(security_context=sandbox_context))
    for name in ("one", "two"):
        id = await crid.run(
            pod, hostile, ["sleep", "100"], linux=security(privileged=privileged), name=name, stdin=True
        )
        fds = list(Path(f"/proc/{await crid.pid_of(id)}/fd").iterdir())
        assert sorted(fd.name for fd in fds) == ["0", "1", "2"]
        listed = (await crid.exec(id, "sh", "-c", "exec ls /proc/self/fd"))[1].split()
        assert listed == ["0", "1", "2", "3"]  # ls has the directory open


async def test_working_directories_by_number(crid: Crid, hostile: str, forge: Forge) -> None:
    """R10, CVE-2024-21626: for every number that a directory of the host might have, asked for and of an image."""
    pod = await crid.run_pod()
    for number in range(3, 65):
        with pytest.raises(CriError, match="working directory"):
            place = f"/proc/self/fd/{number}"
            await crid.run(pod, hostile, ["ls", "-la"], working_dir=place, name=f"n{number}")
    for place in ("/proc/self/fd/7", "/proc/self/fd/8/../..", "/link", "/proc/1/cwd", "/proc/thread-self/root/../.."):
        image = await forge.image([symlink("link", "/proc/self/fd/9")], WorkingDir=place)
        try:
            id = await crid.run(pod, image, ["sleep", "100"], name=place)
        except CriError:
            continue
        inside = (await crid.exec(id, "sh", "-c", "readlink /proc/self/cwd; stat -c %d:%i / /proc/self/root"))[
            1
        ].split()
        assert not inside[0].startswith("(unreachable)") and inside[1] == inside[2]
