"""Logs, terminals, stdin and attachments: what comes out of a container, and what goes in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from pathlib import Path

import pytest

from runtime.client import NotFound, Pod
from runtime.linux import mountapi, mounts, syscalls
from runtime.shim.copying import GONE_MAX
from tests.support.containers import Node, content, logged
from tests.support.processes import eventually

LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ([PF]) (.*)")
SECONDS = 10.0


async def read_until(fd: int, wanted: bytes) -> bytes:
    """What can be read until `wanted` has come."""
    got = b""
    async with asyncio.timeout(SECONDS):
        while wanted not in got:
            chunk = await asyncio.to_thread(os.read, fd, 65536)
            if not chunk:
                break
            got += chunk
    return got


async def test_every_line_has_time_stream_and_tag(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "sh", "-c", "echo one; echo two >&2; echo; printf no-newline")
    await pod.start_container(spec)
    await node.exited(spec)
    matched = [LINE.fullmatch(line) for line in Path(spec.log_path).read_bytes().splitlines()]
    found = {match.groups() for match in matched if match}
    assert found == {
        (b"stdout", b"F", b"one"),
        (b"stderr", b"F", b"two"),
        (b"stdout", b"F", b""),
        (b"stdout", b"F", b"no-newline"),
    }
    assert len(matched) == 4


async def test_long_lines_come_in_parts(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "sh", "-c", "yes | head -c 100000 | tr -d '\\n'; echo; echo end")
    await pod.start_container(spec)
    await node.exited(spec)
    matched = [LINE.fullmatch(line) for line in Path(spec.log_path).read_bytes().splitlines()]
    parts = [(match.group(2), len(match.group(3))) for match in matched if match]
    assert parts == [(b"P", 16384)] * 3 + [(b"F", 50000 - 3 * 16384), (b"F", 3)]


async def test_much_output_arrives_whole(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "sh", "-c", "yes 0123456789 | head -n 500000")
    await pod.start_container(spec)
    await node.exited(spec)
    assert logged(spec) == "0123456789\n" * 500000


async def test_reopening_after_a_rotation(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "sh", "-c", "echo before; read x; echo after; sleep 1000", stdin=True)
    await pod.start_container(spec)
    log = Path(spec.log_path)
    await eventually(lambda: log.read_bytes())
    log.rename(log.with_suffix(".1"))
    await pod.reopen_log(spec.id)
    attachment = await pod.attach(spec.id)
    assert attachment.stdin is not None
    os.write(attachment.stdin, b"\n")
    await eventually(lambda: log.read_bytes())
    assert logged(spec) == "after\n"
    assert log.stat().st_mode & 0o777 == 0o640
    for fd in (attachment.stdin, attachment.stdout, attachment.stderr):
        assert fd is not None
        os.close(fd)


async def test_reopening_the_log_of_an_ended_container(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "true")
    await pod.start_container(spec)
    await node.exited(spec)
    with pytest.raises(NotFound):
        await pod.reopen_log(spec.id)


async def test_a_full_disk_loses_lines_and_nothing_else(node: Node, pod: Pod, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    fd = mounts.filesystem("tmpfs", "tmpfs", [("size", "64k")])
    mountapi.move_mount_at(fd, str(disk))
    os.close(fd)
    try:
        spec = node.container(pod, "sh", "-c", "yes | head -n 100000; read x; echo last words", stdin=True)
        spec.log_path = str(disk / "log")
        await pod.start_container(spec)
        await eventually(lambda: os.statvfs(disk).f_bavail == 0)
        other = await node.sh(pod, "echo fine")
        assert other == "fine\n"
        assert (await pod.container_status(spec.id))["log_bytes_lost"] > 0
        os.truncate(disk / "log", 0)
        await pod.close_stdin(spec.id)
        assert (await node.exited(spec)).exit_code == 0
        assert content(Path(spec.log_path).read_bytes().splitlines()[-1]) == b"last words\n"
    finally:
        syscalls.umount2(str(disk), syscalls.MNT_DETACH)


async def test_stdin_is_the_null_device_unless_asked_for(node: Node, pod: Pod) -> None:
    assert await node.sh(pod, "readlink /proc/self/fd/0; cat") == "/dev/null\n"


async def test_attach_talks_both_ways(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "sh", "-c", "read a; echo got $a; read b; echo err $b >&2; sleep 1000", stdin=True)
    await pod.start_container(spec)
    attachment = await pod.attach(spec.id)
    assert attachment.stdin is not None and attachment.stderr is not None
    os.write(attachment.stdin, b"first\n")
    assert await read_until(attachment.stdout, b"\n") == b"got first\n"
    os.close(attachment.stdin)  # stdin stays open for the next one
    again = await pod.attach(spec.id)
    assert again.stdin is not None and again.stderr is not None
    os.write(again.stdin, b"second\n")
    for fd in (attachment.stderr, again.stderr):
        assert await read_until(fd, b"\n") == b"err second\n"
    for fd in (attachment.stdout, attachment.stderr, again.stdin, again.stdout, again.stderr):
        os.close(fd)
    assert logged(spec) == "got first\nerr second\n"


@pytest.mark.parametrize("once", [True, False])
async def test_stdin_ends_with_the_first_attachment_if_so_wished(node: Node, pod: Pod, once: bool) -> None:
    spec = node.container(pod, "cat", stdin=True, stdin_once=once)
    await pod.start_container(spec)
    attachment = await pod.attach(spec.id)
    assert attachment.stdin is not None and attachment.stderr is not None
    os.write(attachment.stdin, b"x" * 1000 + b"\n")
    for fd in (attachment.stdin, attachment.stdout, attachment.stderr):
        os.close(fd)
    if not once:
        await asyncio.sleep(0.1)
        assert "exit_code" not in await pod.container_status(spec.id)
        await pod.close_stdin(spec.id)
    assert (await node.exited(spec)).exit_code == 0
    assert logged(spec) == "x" * 1000 + "\n"


async def test_much_input_at_the_containers_pace(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "sh", "-c", "sleep 0.2; wc -c", stdin=True, stdin_once=True)
    await pod.start_container(spec)
    attachment = await pod.attach(spec.id)
    assert attachment.stdin is not None and attachment.stderr is not None
    data = b"0123456789abcde\n" * 100_000

    def write_all() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(attachment.stdin, view) :]  # type: ignore[arg-type]

    await asyncio.to_thread(write_all)
    for fd in (attachment.stdin, attachment.stdout, attachment.stderr):
        os.close(fd)
    await node.exited(spec)
    assert logged(spec).strip() == str(len(data))


async def test_a_reader_that_never_reads_is_cut_off(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "sh", "-c", "read x; yes 0123456789 | head -n 500000", stdin=True)
    await pod.start_container(spec)
    lazy = await pod.attach(spec.id)
    await pod.close_stdin(spec.id)
    event = await node.exited(spec)
    assert event.exit_code == 0
    assert len(logged(spec)) == 11 * 500000
    got = b""
    while chunk := os.read(lazy.stdout, 1 << 20):
        got += chunk
    assert 0 < len(got) < 11 * 500000
    for fd in (lazy.stdin, lazy.stdout, lazy.stderr):
        assert fd is not None
        os.close(fd)


async def test_attach_to_an_ended_container(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "true")
    await pod.start_container(spec)
    await node.exited(spec)
    with pytest.raises(NotFound):
        await pod.attach(spec.id)


async def test_a_terminal(node: Node, pod: Pod) -> None:
    script = "trap 'exit 9' INT; tty; stat -c %u /dev/pts/0; ls /dev/console; read x; stty size; echo err >&2; read x"
    spec = node.container(pod, "sh", "-c", script, tty=True, stdin=True, process={"user": {"uid": 5, "gid": 5}})
    await pod.start_container(spec)
    await pod.resize(spec.id, 33, 77)
    attachment = await pod.attach(spec.id)
    assert attachment.stdin is not None and attachment.stderr is None
    os.write(attachment.stdin, b"\n")
    shown = await read_until(attachment.stdout, b"err")
    assert b"33 77" in shown
    os.write(attachment.stdin, b"\x03")  # the terminal makes SIGINT of it
    assert (await node.exited(spec)).exit_code == 9
    words = logged(spec).split()  # the echo of the empty line stands anywhere among them
    assert words[:3] == ["/dev/pts/0", "5", "/dev/console"]
    for fd in (attachment.stdin, attachment.stdout):
        os.close(fd)


async def test_output_of_processes_that_outlive_the_first(node: Node) -> None:
    """In a shared PID namespace a background process keeps the pipe open; it is killed, and the exit is not held up."""
    pod = await node.pod(pid="pod")
    spec = node.container(pod, "sh", "-c", "setsid sleep 1000 & echo done")
    await pod.start_container(spec)
    assert (await node.exited(spec)).exit_code == 0
    assert logged(spec) == "done\n"


async def test_attachments_that_end_while_nothing_is_written_and_nothing_is_read(node: Node, pod: Pod) -> None:
    """The container says nothing for years, and does not listen: those who were attached leave no descriptor."""
    spec = node.container(pod, "sleep", "1000", stdin=True)
    await pod.start_container(spec)
    descriptors = Path(f"/proc/{pod.shim.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(60):
        attachment = await pod.attach(spec.id)
        assert attachment.stdin is not None and attachment.stderr is not None
        os.set_blocking(attachment.stdin, False)
        with contextlib.suppress(BlockingIOError):
            os.write(attachment.stdin, b"x" * 70_000)
        for fd in (attachment.stdin, attachment.stdout, attachment.stderr):
            os.close(fd)
    async with asyncio.timeout(SECONDS):
        while len(list(descriptors.iterdir())) > before + GONE_MAX:  # noqa: ASYNC110 - another process is looked at
            await asyncio.sleep(0.02)
