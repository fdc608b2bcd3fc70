"""Cgroups against the kernel that is here: what it enforces, counts and reports, on v1, hybrid or v2 alike."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.linux.cgroups import Cgroup, detect, files, remove_directories
from runtime.linux.cgroups.counters import page_sizes, read_counters
from runtime.linux.cgroups.usage import read_pids, read_stats, read_task_count
from tests.support.in_cgroup import Inside, python

MIB = 1 << 20

FORK_BOMB = """
import os, signal, time
children = []
try:
    while len(children) < 200:
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
            os._exit(0)
        children.append(pid)
except BlockingIOError:
    print(len(children), flush=True)
for pid in children:
    os.kill(pid, signal.SIGKILL)
"""
ALLOCATE = "block = bytearray(200 << 20); print('survived', len(block))"
BURN = "import time\nend = time.monotonic() + 1.0\nwhile time.monotonic() < end: pass"
READY = "print('ready', flush=True); import time; time.sleep(60)"
HOLD = "block = bytearray(40 << 20); " + READY


def need(controller: str) -> None:
    if not detect().version(controller):
        pytest.skip(f"this host has no {controller} controller: {detect()}")


def ready(cgroup: Cgroup, program: str = READY) -> Inside:
    """A child that has joined, executed and said so."""
    child = Inside(cgroup, python(program))
    assert select.select([child.stdout], [], [], 30)[0]
    return child


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    top = Cgroup(f"/na-test-{secrets.token_hex(4)}")
    cgroup = Cgroup(f"{top.path}/pod/container")
    cgroup.create()
    yield cgroup
    top.kill()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    top.remove(10)


def test_create_and_remove_are_idempotent(cgroup: Cgroup) -> None:
    cgroup.create()
    assert all(Path(directory).is_dir() for directory in cgroup.directories)
    cgroup.remove()
    assert not cgroup.exists()
    cgroup.remove()
    remove_directories(cgroup.directories)


def test_a_child_joins_every_hierarchy(cgroup: Cgroup) -> None:
    status, printed = Inside(cgroup, ["cat", "/proc/self/cgroup"]).finish()
    assert status == 0
    paths = {
        controller: path
        for _, controllers, path in (line.split(":", 2) for line in printed.splitlines())
        for controller in controllers.split(",")
    }
    for controller in cgroup.layout.v1:
        assert paths[controller].endswith(cgroup.path), (controller, paths)
    assert paths[""].endswith(cgroup.path)


def test_a_fork_bomb_ends_at_the_pids_limit(cgroup: Cgroup) -> None:
    need("pids")
    cgroup.apply({"pids": {"limit": 10}})
    status, printed = Inside(cgroup, python(FORK_BOMB)).finish()
    assert (status, printed) == (0, "9\n")
    stats = read_pids(cgroup)
    assert stats and stats.limit == 10


def test_the_oom_killer_is_counted(cgroup: Cgroup) -> None:
    need("memory")
    cgroup.apply({"memory": {"limit": 32 * MIB, "swap": 32 * MIB}})
    assert cgroup.oom_kills() == 0
    status, printed = Inside(cgroup, python(ALLOCATE)).finish()
    assert (status, printed) == (-signal.SIGKILL, "")
    assert cgroup.oom_kills() == 1


def test_memory_usage_is_measured(cgroup: Cgroup) -> None:
    need("memory")
    cgroup.apply({"memory": {"limit": 256 * MIB}})
    child = ready(cgroup, HOLD)
    memory = read_stats(cgroup).memory
    cgroup.kill()
    assert memory
    assert 40 * MIB <= memory.anon <= 60 * MIB
    assert memory.rss <= memory.working_set <= memory.usage <= 256 * MIB == memory.limit
    assert memory.page_faults > 0
    assert child.finish()[0] == -signal.SIGKILL


def test_a_cpu_quota_throttles(cgroup: Cgroup) -> None:
    need("cpu")
    cgroup.apply({"cpu": {"quota": 10_000, "period": 100_000, "shares": 512}})
    assert Inside(cgroup, python(BURN)).finish()[0] == 0
    cpu, counters = read_stats(cgroup).cpu, read_counters(cgroup).cpu
    assert cpu and counters
    assert counters.throttled_periods > 3 and counters.throttled_ns > 0
    assert 0 < cpu.usage_ns < counters.throttled_ns, "a tenth of a processor waits nine times as long as it runs"
    assert counters.user_ns > 0


def test_quota_and_period_can_change_together_in_any_direction(cgroup: Cgroup) -> None:
    need("cpu")
    parent = Cgroup(os.path.dirname(cgroup.path))
    parent.apply({"cpu": {"quota": 50_000, "period": 100_000}})
    for quota, period in ((50_000, 100_000), (5_000, 10_000), (500_000, 1_000_000), (1_000, 2_000)):
        cgroup.apply({"cpu": {"quota": quota, "period": period}})


def test_memory_and_swap_limits_can_grow_and_shrink(cgroup: Cgroup) -> None:
    need("memory")
    for limit in (64 * MIB, 128 * MIB, 32 * MIB):
        cgroup.apply({"memory": {"limit": limit, "swap": limit}})
        memory = read_stats(cgroup).memory
        assert memory and memory.limit == limit and memory.swap_limit in (0, None)
    cgroup.apply({"memory": {"limit": -1, "swap": -1}})
    memory = read_stats(cgroup).memory
    assert memory and memory.limit is None and memory.swap_limit is None


def test_a_cpuset_is_inherited_and_narrowed(cgroup: Cgroup) -> None:
    need("cpuset")
    show = python("import os; print(*sorted(os.sched_getaffinity(0)))")
    assert Inside(cgroup, show).finish() == (0, " ".join(map(str, sorted(os.sched_getaffinity(0)))) + "\n")
    cgroup.apply({"cpu": {"cpus": "0"}})
    assert Inside(cgroup, show).finish() == (0, "0\n")


def block_device() -> str:
    for name in sorted(os.listdir("/sys/dev/block")):
        return name
    pytest.skip("this host has no block device to be denied")


OPEN_DEVICES = """
import errno, os, stat, sys
path, major, minor = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(major, minor))
try:
    os.open(path, os.O_RDONLY)
    print('opened')
except OSError as error:
    print(errno.errorcode[error.errno])
os.open('/dev/null', os.O_RDWR)
"""


def test_devices_are_denied_but_for_the_default_ones(cgroup: Cgroup, tmp_path: Path) -> None:
    need("devices")
    major, minor = block_device().split(":")
    cgroup.apply({"devices": [{"allow": False, "access": "rwm"}]})
    argv = [*python(OPEN_DEVICES), str(tmp_path / "disk"), major, minor]
    assert Inside(cgroup, argv).finish() == (0, "EPERM\n")


def test_a_device_rule_gives_access(cgroup: Cgroup, tmp_path: Path) -> None:
    need("devices")
    major, minor = block_device().split(":")
    allowed = {"allow": True, "type": "b", "major": int(major), "minor": int(minor), "access": "r"}
    cgroup.apply({"devices": [{"allow": False, "access": "rwm"}, allowed]})
    argv = [*python(OPEN_DEVICES), str(tmp_path / "disk"), major, minor]
    status, printed = Inside(cgroup, argv).finish()
    assert status == 0 and printed != "EPERM\n"


def test_kill_empties_a_tree_that_keeps_forking(cgroup: Cgroup) -> None:
    forever = python("import os\nwhile True:\n pid = os.fork()\n if pid: os.waitpid(pid, 0)")
    children = [Inside(cgroup, forever) for _ in range(3)]
    pod = Cgroup(os.path.dirname(cgroup.path))
    while len(pod.procs()) < 3:
        time.sleep(0.01)
    pod.kill()
    while pod.populated():
        time.sleep(0.01)
    assert pod.procs() == []
    assert [child.finish()[0] for child in children] == [-signal.SIGKILL] * 3


def test_killing_what_is_gone_is_no_error(cgroup: Cgroup) -> None:
    cgroup.remove()
    cgroup.kill()
    assert not cgroup.populated() and cgroup.procs() == [] and cgroup.oom_kills() == 0


def test_removal_without_any_time_takes_what_is_below(cgroup: Cgroup) -> None:
    """The loop of a shim has no time for it; a container may have left cgroups of its own."""
    Cgroup(f"{cgroup.path}/exec-1/deep").create()
    cgroup.remove(0)
    assert not cgroup.exists()
    cgroup.create()
    child = ready(cgroup)
    with pytest.raises(OSError, match="busy") as caught:
        cgroup.remove(0)
    assert caught.value.__notes__ == [f"processes in it: [{child.pid}]"]


def test_a_frozen_cgroup_does_not_run(cgroup: Cgroup) -> None:
    child = ready(cgroup, "print('ready', flush=True)\nwhile True: pass")
    cgroup.freeze(True)
    usage = _usage(cgroup)
    time.sleep(0.1)
    assert _usage(cgroup) == usage
    cgroup.freeze(False)
    before = _usage(cgroup)
    while _usage(cgroup) == before:
        time.sleep(0.01)
    cgroup.kill()
    assert child.finish()[0] == -signal.SIGKILL


@pytest.mark.parametrize("at", ["open", "write", "pread"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_cgroup_that_goes_while_it_is_frozen_is_gone(
    cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch, at: str, frozen: bool
) -> None:
    """Before its file is opened, between open and write, and between the open and the read of its events."""
    real = getattr(os, at)

    def late(*arguments: object) -> object:
        cgroup.remove()
        return real(*arguments)

    monkeypatch.setattr(os, at, late)
    with pytest.raises(FileNotFoundError):
        cgroup.freeze(frozen)
    monkeypatch.undo()
    cgroup.create()
    cgroup.freeze(frozen)


def test_a_cgroup_whose_events_are_gone_is_gone(cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.write

    def write(path: str, value: str) -> None:
        real(path, value)
        cgroup.remove()

    monkeypatch.setattr(files, "write", write)
    with pytest.raises(FileNotFoundError):
        cgroup.freeze(True)


def _usage(cgroup: Cgroup) -> int:
    cpu = read_stats(cgroup).cpu
    assert cpu
    return cpu.usage_ns


def test_remove_waits_for_the_last_process_and_says_who_stays(cgroup: Cgroup) -> None:
    child = ready(cgroup)
    with pytest.raises(OSError) as caught:
        cgroup.remove(0.05)
    assert str(child.pid) in "".join(caught.value.__notes__)
    cgroup.kill()
    cgroup.remove()
    child.finish()


def test_remove_takes_the_cgroups_below_along(cgroup: Cgroup) -> None:
    for directory in cgroup.directories:
        (Path(directory) / "made" / "inside").mkdir(parents=True)
    cgroup.remove()
    assert not cgroup.exists()


def test_a_process_can_be_moved_in(cgroup: Cgroup) -> None:
    child = ready(cgroup)
    other = Cgroup(os.path.dirname(cgroup.path) + "/other")
    other.create()
    other.add(child.pid)
    assert (cgroup.procs(), other.procs()) == ([], [child.pid])
    other.kill()
    child.finish()


def test_a_refused_value_names_field_and_cgroup(cgroup: Cgroup) -> None:
    need("cpuset")
    with pytest.raises(OSError) as caught:
        cgroup.apply({"cpu": {"cpus": "4095"}})
    notes = "".join(caught.value.__notes__)
    assert "linux.resources.cpu.cpus" in notes and cgroup.path in notes and "4095" in notes


def test_a_limit_below_the_usage_is_refused_on_demand(cgroup: Cgroup) -> None:
    need("memory")
    child = ready(cgroup, HOLD)
    with pytest.raises(ValueError, match=r"below the \d+ bytes"):
        cgroup.apply({"memory": {"limit": 8 * MIB, "checkBeforeUpdate": True}})
    assert cgroup.procs() == [child.pid]
    cgroup.kill()
    child.finish()


def test_usage_is_read_from_few_files_and_no_descriptor_stays(cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubelet asks every ten seconds for every container of the node, so each file counts a hundred times."""
    opens: list[str] = []
    really_open = os.open

    def counted(path: str, *arguments: int) -> int:
        opens.append(path)
        return really_open(path, *arguments)

    def opened(read: Callable[[Cgroup], object]) -> int:
        opens.clear()
        read(cgroup)
        return len(opens)

    read_counters(cgroup)  # what is detected at first use is no part of it
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "open", counted)
    assert opened(read_stats) <= 10, opens
    assert opened(read_task_count) <= 1, opens
    assert opened(Cgroup.procs) == 1, opens
    assert opened(read_counters) <= 10 + 2 * len(page_sizes()), opens
    assert len(os.listdir("/proc/self/fd")) == before
