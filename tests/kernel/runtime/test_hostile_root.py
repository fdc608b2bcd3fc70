"""Published escapes, replayed with root filesystems and requests that try them; the host must be as before.

The numbers are those of the list of escapes that this project keeps: R for low-level runtimes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.client import Pod, StartError, explain
from tests.support.containers import Node, bind, exec_output, logged


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host that nobody may touch."""
    directory = tmp_path / "canary"
    directory.mkdir()
    (directory / "file").write_text("untouched")
    before = sorted(os.listdir(directory)), (directory / "file").stat()
    yield directory
    after = sorted(os.listdir(directory)), (directory / "file").stat()
    assert (before[0], before[1].st_mode, before[1].st_mtime_ns) == (after[0], after[1].st_mode, after[1].st_mtime_ns)
    assert (directory / "file").read_text() == "untouched"
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["absolute", "relative", "dangling"])
async def test_r2_r3_r9_r15_a_link_where_the_kernels_filesystems_go(
    node: Node, pod: Pod, canary: Path, place: str, target: str
) -> None:
    links = {"absolute": str(canary), "relative": f"../../../../../..{canary}", "dangling": "/nowhere"}
    (node.root / place).symlink_to(links[target])
    with pytest.raises(OSError) as failed:
        await node.run(pod, "true")
    assert f"the image's /{place} is not a plain directory" in explain(failed.value)


async def test_r3_a_link_at_a_volumes_place_stays_inside(node: Node, pod: Pod, canary: Path, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/mine").touch()
    for name, target in (("data", str(canary)), ("up", f"../../../../../../../../..{canary}")):
        (node.root / name).symlink_to(target)
    binds = [bind(tmp_path / "volume", place) for place in ("/data/inside", "/up/deeper")]
    output = await node.sh(pod, f"ls {canary}/inside {canary}/deeper", mounts=binds)
    assert output.count("mine") == 2


async def test_r17_files_that_we_put_in_do_not_follow_links_out(
    node: Node, pod: Pod, canary: Path, tmp_path: Path
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 10.0.0.1\n")
    (node.root / "etc").symlink_to(canary)
    output = await node.sh(
        pod, "cat /etc/resolv.conf", mounts=[bind(tmp_path / "resolv.conf", "/etc/resolv.conf", "ro")]
    )
    assert output == "nameserver 10.0.0.1\n"


@pytest.mark.parametrize("name", ["null", "console", "ptmx", "full"])
async def test_r12_r13_devices_that_the_image_has_replaced(node: Node, pod: Pod, canary: Path, name: str) -> None:
    (node.root / "dev").mkdir()
    (node.root / "dev" / name).symlink_to(canary / "file")
    output = await node.sh(
        pod, "cat /proc/timer_list; stat -c %t:%T /dev/null", linux={"maskedPaths": ["/proc/timer_list"]}
    )
    assert output == "1:3\n"


async def test_r12_a_null_device_that_is_none_is_refused(node: Node, pod: Pod, canary: Path) -> None:
    (node.root / "dev").mkdir()
    (node.root / "dev/null").symlink_to(canary / "file")
    mounts = [
        entry for entry in node.container(pod, "true").oci["mounts"] if not entry["destination"].startswith("/dev")
    ]
    mounts.append(bind(node.root / "dev", "/dev"))
    with pytest.raises(OSError):
        await node.run(pod, "true", all_mounts=mounts)


async def test_r10_no_directory_of_the_host_by_number(node: Node, pod: Pod) -> None:
    idle = await node.idle(pod)
    for number in range(3, 65):
        for cwd in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/.."):
            with pytest.raises((StartError, OSError)):
                await node.run(pod, "sh", "-c", "ls -la", process={"cwd": cwd})
        with pytest.raises((StartError, OSError)):
            await exec_output(pod, idle, "ls", cwd=f"/proc/self/fd/{number}")


async def test_r10_a_working_directory_that_is_a_link_of_the_image(node: Node, pod: Pod) -> None:
    for number in range(3, 12):
        (node.root / f"wd{number}").symlink_to(f"/proc/self/fd/{number}")
        with pytest.raises((StartError, OSError)):
            await node.run(pod, "true", process={"cwd": f"/wd{number}"})


async def test_r1_the_interpreter_is_on_a_read_only_mount(node: Node) -> None:
    pod = await node.pod(pid="node")
    assert os.statvfs(f"/proc/{pod.shim.pid}/exe").f_flag & os.ST_RDONLY
    names = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]
    sets = dict.fromkeys(("bounding", "effective", "permitted"), names)
    script = f": >> /proc/{pod.shim.pid}/exe"
    code, output = await node.run(pod, "sh", "-c", script, process={"capabilities": sets})
    assert code != 0
    assert "Text file busy" in output or "Read-only file system" in output


async def test_r1_without_ptrace_the_shim_cannot_be_looked_into(node: Node) -> None:
    pod = await node.pod(pid="node")
    for name in ("root/", "cwd/", "environ", "maps", "fd/3", "mem"):
        code, output = await node.run(pod, "cat", f"/proc/{pod.shim.pid}/{name}")
        assert code != 0
        assert "ermission denied" in output or "not permitted" in output


async def test_r1_a_program_that_is_its_own_interpreter(node: Node, pod: Pod) -> None:
    (node.root / "bin/self").write_text("#!/proc/self/exe\n")
    (node.root / "bin/self").chmod(0o755)
    with pytest.raises(StartError):
        await node.run(pod, "self")


async def test_r7_inheritable_capabilities_are_empty_in_execs_too(node: Node, pod: Pod) -> None:
    idle = await node.idle(pod)
    sets = {name: ["CAP_NET_RAW"] for name in ("bounding", "effective", "permitted", "inheritable")}
    code, output = await exec_output(pod, idle, "grep", "Cap", "/proc/self/status", capabilities=sets)
    assert code == 0
    values = {line.split(":")[0]: line.split()[1] for line in output.splitlines()}
    net_raw, none = "0000000000002000", "0" * 16
    assert values == {"CapInh": none, "CapPrm": net_raw, "CapEff": net_raw, "CapBnd": net_raw, "CapAmb": none}


async def test_r20_nothing_of_the_image_is_opened_before_execve(node: Node, pod: Pod, tmp_path: Path) -> None:
    """strace of a start and of an exec: between pivot_root or setns and execve no library, codec, locale or config."""
    for name in (
        "encodings/__init__.py",
        "lib/x86_64-linux-gnu/libnss_files.so.2",
        "etc/locale.alias",
        "sitecustomize.py",
    ):
        (node.root / name).parent.mkdir(parents=True, exist_ok=True)
        (node.root / name).write_text("raise SystemExit('loaded from the image')")
    trace = tmp_path / "trace"
    with traced(pod.shim.pid, trace):
        code, _ = await node.run(pod, "sh", "-c", "exit 3", process={"user": {"uid": 1000, "gid": 1000}})
        assert code == 3
        idle = await node.idle(pod)
        with pytest.raises(StartError):
            await exec_output(pod, idle, "nothing-like-this")
        assert (await exec_output(pod, idle, "true"))[0] == 0
    assert opened_before_execve(trace.read_text()) <= {"/", "."}


def opened_before_execve(trace: str) -> set[str]:
    """Paths that processes opened by name after they had entered a container's root and before they executed."""
    entered: set[str] = set()
    opened: set[str] = set()
    for line in trace.splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if " = 0" in call and (call.startswith("pivot_root(") or "CLONE_NEWNS" in call):
            entered.add(pid)
        elif call.startswith("execve(") and " = 0" in call:
            entered.discard(pid)
        elif pid in entered and call.startswith(("open(", "openat(")) and '"' in call:
            opened.add(call.split('"')[1])
    return opened


class traced:
    """Runs strace on a process and its new children."""

    def __init__(self, pid: int, output: Path) -> None:
        calls = "trace=open,openat,execve,pivot_root,setns"
        self._strace = subprocess.Popen(
            ["strace", "-f", "-e", calls, "-o", str(output), "-p", str(pid)], stderr=subprocess.PIPE
        )

    def __enter__(self) -> None:
        assert self._strace.stderr is not None
        assert b"attached" in self._strace.stderr.readline()

    def __exit__(self, *_: object) -> None:
        self._strace.send_signal(signal.SIGINT)
        self._strace.wait(10)
        assert self._strace.stderr is not None
        self._strace.stderr.close()


async def test_r16_users_are_numbers_here(node: Node, pod: Pod) -> None:
    idle = await node.idle(pod)
    for uid in ("root", "0", -1, 2**32, None):
        with pytest.raises(Exception, match="is not a number"):
            await exec_output(pod, idle, "id", user={"uid": uid, "gid": 0})


async def test_a_mount_swapped_for_a_link_while_containers_start(
    node: Node, pod: Pod, canary: Path, tmp_path: Path
) -> None:
    """R4, R5: a volume shared with a running container that swaps a directory for a link, again and again."""
    shared = tmp_path / "shared"
    (shared / "real").mkdir(parents=True)
    (shared / "link").symlink_to(canary)
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/mine").touch()
    swap = "mv real t; mv link real; mv t link"
    script = f"cd /s; while true; do {swap}; {swap}; done"
    swapper = node.container(pod, "sh", "-c", script, mounts=[bind(shared, "/s")])
    await pod.start_container(swapper)
    deadline = time.monotonic() + 3
    started = 0
    while time.monotonic() < deadline:
        spec = node.container(pod, "true", mounts=[bind(shared, "/s"), bind(tmp_path / "volume", "/s/real/sub")])
        try:
            await pod.start_container(spec)
        except OSError:
            continue  # refused is as good as contained
        await node.exited(spec)
        started += 1
        assert logged(spec) == ""
    await pod.kill(swapper.id)
    await node.exited(swapper)
