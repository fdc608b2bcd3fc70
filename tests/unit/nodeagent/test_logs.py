"""Log lines, rotation, and the last words that come from a log."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import cast

import pytest
from google.protobuf.message import Message

from cri.client import CriClient, CriError
from cri.proto import api_pb2
from nodeagent.logs.lines import Line, parse_line
from nodeagent.logs.opening import open_log
from nodeagent.logs.rotation import LogRotation, rotated, tidy
from nodeagent.translate import marks
from tests.support.fake_cri import FakeCri


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (
            b"2016-10-06T00:17:09.66Z stdout F hello world\n",
            Line(b"2016-10-06T00:17:09.66Z", b"stdout", b"hello world\n"),
        ),
        (b"t stderr P part", Line(b"t", b"stderr", b"part")),
        (b"t stdout F:x:y a", Line(b"t", b"stdout", b"a\n")),
        (b"t stdout F ", Line(b"t", b"stdout", b"\n")),
        (b"t stdout F", None),
        (b"t other F x", None),
        (b"", None),
    ],
)
def test_lines(line: bytes, parsed: Line | None) -> None:
    assert parse_line(line) == parsed


def running(cri: FakeCri, path: Path, id: str = "c") -> None:
    cri.sandboxes["s"] = api_pb2.PodSandboxStatus(id="s")
    status = api_pb2.ContainerStatus(
        id=id, state=api_pb2.CONTAINER_RUNNING, labels={marks.NODE: "n"}, log_path=str(path)
    )
    cri.containers[id] = ("s", status)


class Troubled(FakeCri):
    """Says nothing of one container, and does not open the log of another."""

    def _ContainerStatus(self, request: api_pb2.ContainerStatusRequest) -> Message:
        if request.container_id == "silent":
            raise CriError("ContainerStatus", "DEADLINE_EXCEEDED", "no answer")
        return super()._ContainerStatus(request)

    def _ReopenContainerLog(self, request: api_pb2.ReopenContainerLogRequest) -> Message:
        if request.container_id == "stuck":
            raise CriError("ReopenContainerLog", "DEADLINE_EXCEEDED", "no answer")
        return api_pb2.ReopenContainerLogResponse()


async def test_a_log_that_is_too_large_is_rotated_and_older_ones_compressed(tmp_path: Path) -> None:
    cri, log = FakeCri(), tmp_path / "0.log"
    running(cri, log)
    rotation = LogRotation(cast(CriClient, cri), "n", limit=100, files=4)
    log.write_bytes(b"x" * 100)
    await rotation.once()
    assert cri.called("ReopenContainerLog") == []
    for old in ("20260101-000000", "20260101-000001", "20260101-000002"):
        (tmp_path / f"0.log.{old}").write_text(old)
    log.write_bytes(b"y" * 101)
    await rotation.once()
    assert len(cri.called("ReopenContainerLog")) == 1
    first, second, newest = rotated(log)
    assert [first.name, second.name] == ["0.log.20260101-000001.gz", "0.log.20260101-000002.gz"]
    assert gzip.decompress(second.read_bytes()) == b"20260101-000002"
    assert newest.read_bytes() == b"y" * 101, "what the runtime may still write to is not compressed yet"


async def test_a_runtime_that_cannot_reopen_keeps_its_log(tmp_path: Path) -> None:
    cri, log = FakeCri(), tmp_path / "0.log"
    running(cri, log)
    log.write_bytes(b"y" * 101)
    cri.fail["ReopenContainerLog"] = [("UNKNOWN", "no")]
    await LogRotation(cast(CriClient, cri), "n", limit=100, files=3).once()
    assert log.read_bytes() == b"y" * 101
    assert rotated(log) == []


async def test_what_is_wrong_with_one_pod_leaves_the_others_logs_rotated(tmp_path: Path) -> None:
    cri = Troubled()
    names = ("silent", "loop", "stuck", "well")
    for name in names:
        running(cri, tmp_path / name, name)
        (tmp_path / name).write_bytes(b"y" * 101)
    (tmp_path / "loop").unlink()
    (tmp_path / "loop").symlink_to("loop")
    await LogRotation(cast(CriClient, cri), "n", limit=100, files=3).once()
    assert [name for name in names if rotated(tmp_path / name)] == ["well"]


def test_what_a_crash_left_of_a_compression_is_removed(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    (tmp_path / "0.log.1.tmp").write_text("half")
    (tmp_path / "0.log.1").write_text("whole")
    tidy(log, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["0.log.1.gz"]


def test_a_log_goes_once_its_compressed_form_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "0.log"
    (tmp_path / "0.log.1").write_text("lines")
    done: list[tuple[str, str, list[str]]] = []
    sync, unlink = os.fsync, Path.unlink

    def synced(fd: int) -> None:
        sync(fd)
        done.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{fd}")), sorted(os.listdir(tmp_path))))

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        done.append(("unlink", path.name, sorted(os.listdir(tmp_path))))
        unlink(path, missing_ok)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "unlink", unlinked)
    tidy(log, 1)
    assert done == [
        ("sync", "0.log.1.tmp", ["0.log.1", "0.log.1.tmp"]),
        ("sync", tmp_path.name, ["0.log.1", "0.log.1.gz"]),
        ("unlink", "0.log.1", ["0.log.1", "0.log.1.gz"]),
    ]
    assert gzip.decompress((tmp_path / "0.log.1.gz").read_bytes()) == b"lines"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """The log of a pod that has the node's directory of logs as a volume, beside a file of the host's."""
    (tmp_path / "secret").write_text("t stdout F of the host\n")
    (tmp_path / "pods/pod/container").mkdir(parents=True)
    return tmp_path / "pods/pod/container/0.log"


def test_a_link_among_rotated_logs_is_not_compressed(hostile: Path) -> None:
    hostile.with_name("0.log.1").symlink_to(hostile.parents[3] / "secret")
    os.mkfifo(hostile.with_name("0.log.2"))
    hostile.with_name("0.log.3").write_text("own")
    tidy(hostile, 5)
    assert [path.name for path in hostile.parent.iterdir()] == ["0.log.3.gz"]
    assert (hostile.parents[3] / "secret").read_text() == "t stdout F of the host\n"


def test_a_log_is_no_link_and_nothing_that_makes_wait(hostile: Path) -> None:
    hostile.write_text("t stdout F own\n")
    with open_log(hostile) as file:
        assert file.read() == b"t stdout F own\n"
    hostile.unlink()
    hostile.symlink_to(hostile.parents[3] / "secret")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        open_log(hostile)
    hostile.unlink()
    os.mkfifo(hostile)
    with pytest.raises(OSError, match="no regular file"):
        open_log(hostile)
    (hostile.parents[3] / "0.log").write_text("t stdout F of the host\n")
    hostile.parents[1].rename(hostile.parents[2] / "moved")
    (hostile.parents[2] / "pod").mkdir()
    (hostile.parents[2] / "pod/container").symlink_to(hostile.parents[3])
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        open_log(hostile)
    with pytest.raises(FileNotFoundError):
        open_log(hostile.parents[2] / "moved/container/1.log")
