"""The watched directory: whole files, partial writes, atomic replacement, editors, links, and a directory that goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from nodeagent.manifests import directory as module
from nodeagent.manifests.catalogue import Catalogue, Wanted
from nodeagent.manifests.directory import ManifestDirectory
from nodeagent.manifests.lastgood import LastGood
from nodeagent.manifests.looks import Looks
from runtime.linux.records import Records
from tests.support.databases import locked_by_another
from tests.support.pods import manifest, text


class Watched:
    """A running ManifestDirectory, and what it said last."""

    def __init__(self, path: Path, records: Path) -> None:
        self.path = path
        self.said: list[Wanted] = []
        self._news = asyncio.Event()
        self._records = Records(records)
        catalogue = Catalogue("node-1", str(path))
        self.task = asyncio.create_task(ManifestDirectory(path, catalogue, LastGood(self._records), self._take).run())

    def _take(self, wanted: Wanted) -> None:
        self.said.append(wanted)
        self._news.set()

    async def until(self, right: Callable[[Wanted], bool]) -> Wanted:
        async with asyncio.timeout(10):
            while not self.said or not right(self.said[-1]):
                self._news.clear()
                await self._news.wait()
        return self.said[-1]

    def names(self) -> set[str]:
        return {key.name for key in self.said[-1].pods}

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})
        self._records.close()


def pods(*names: str) -> Callable[[Wanted], bool]:
    return lambda wanted: {key.name for key in wanted.pods} == set(names)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks for what inotify does not tell follow each other at once."""
    monkeypatch.setattr(module, "LOOK", 0.05)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    path = tmp_path / "manifests"
    path.mkdir()
    running = Watched(path, tmp_path / "records.db")
    await running.until(pods())
    yield running
    await running.stop()


async def test_files_come_change_and_go(watched: Watched) -> None:
    (watched.path / "a.yaml").write_bytes(text(manifest("a")))
    (watched.path / "b.json").write_bytes(text(manifest("b")))
    first = await watched.until(pods("a", "b"))
    (watched.path / "a.yaml").write_bytes(text(manifest("a", hostname="x")))
    second = await watched.until(lambda wanted: "hostname" in next(iter(wanted.pods.values())).spec)
    assert list(second.pods.values())[1].uid == list(first.pods.values())[1].uid
    (watched.path / "a.yaml").unlink()
    await watched.until(pods("b"))


async def test_a_file_written_in_pieces_is_read_when_it_is_closed(watched: Watched) -> None:
    whole = text(manifest("a"))
    fd = os.open(watched.path / "a.yaml", os.O_CREAT | os.O_WRONLY)
    for start in range(0, len(whole), 20):
        os.write(fd, whole[start : start + 20])
        await asyncio.sleep(0.03)
    assert len(watched.said) == 1, "nothing may be read before the file is closed"
    os.close(fd)
    wanted = await watched.until(pods("a"))
    assert wanted.problems == []


async def test_half_a_file_is_reported_and_mended_by_the_next_event(watched: Watched) -> None:
    whole = text(manifest("a"))
    (watched.path / "a.yaml").write_bytes(whole[: len(whole) // 2])
    await watched.until(lambda wanted: any(problem.fatal for problem in wanted.problems))
    (watched.path / "a.yaml").write_bytes(whole)
    wanted = await watched.until(pods("a"))
    assert wanted.problems == []


async def test_atomic_replacement_and_an_editors_dance_are_one_change(watched: Watched) -> None:
    place = watched.path / "a.yaml"
    place.write_bytes(text(manifest("a")))
    await watched.until(pods("a"))
    said = len(watched.said)
    temporary = watched.path / ".a.yaml.new"
    temporary.write_bytes(text(manifest("a", hostname="x")))
    temporary.rename(place)
    await watched.until(lambda wanted: "hostname" in next(iter(wanted.pods.values())).spec)
    place.rename(watched.path / "a.yaml~")
    place.write_bytes(text(manifest("a", hostname="y")))
    await watched.until(lambda wanted: next(iter(wanted.pods.values())).spec["hostname"] == "y")
    assert len(watched.said) == said + 2
    assert all(len(wanted.pods) == 1 for wanted in watched.said[said:])


async def test_links_count_and_backups_hidden_files_and_directories_do_not(watched: Watched) -> None:
    elsewhere = watched.path.parent / "real.yaml"
    elsewhere.write_bytes(text(manifest("linked")))
    (watched.path / "soft.yaml").symlink_to(elsewhere)
    for name in (".hidden.yaml", "a.yaml~", "#a.yaml#", "a.yaml.swp"):
        (watched.path / name).write_bytes(text(manifest("wrong")))
    (watched.path / "sub.yaml").mkdir()
    await watched.until(pods("linked"))
    os.link(elsewhere, watched.path / "hard.yaml")
    wanted = await watched.until(lambda wanted: bool(wanted.problems))
    assert "pod default/linked is already defined by soft.yaml" in str(wanted.problems[0])


async def test_what_cannot_be_read_is_reported(watched: Watched) -> None:
    os.mkfifo(watched.path / "fifo.yaml")
    (watched.path / "notes.txt").write_text("hello")
    (watched.path / "huge.yaml").touch()
    os.truncate(watched.path / "huge.yaml", 1 << 40)
    (watched.path / "loop.yaml").symlink_to("loop.yaml")
    (watched.path / "a.yaml").write_bytes(text(manifest("a")))
    wanted = await watched.until(lambda wanted: len(wanted.problems) >= 3)
    reasons = {problem.file: problem.reason for problem in wanted.problems}
    assert reasons["notes.txt"].startswith("ignored: its name does not end in .yaml")
    assert "larger than the limit" in reasons["huge.yaml"]
    assert "symbolic links" in reasons["loop.yaml"]
    assert watched.names() == {"a"}


@pytest.mark.usefixtures("often")
async def test_a_link_to_nothing_ends_no_pod_and_what_is_behind_a_link_is_looked_at(
    watched: Watched, tmp_path: Path
) -> None:
    target, link = tmp_path / "elsewhere.yaml", watched.path / "soft.yaml"
    target.write_bytes(text(manifest("a")))
    link.symlink_to(target)
    await watched.until(pods("a"))
    target.unlink()
    wanted = await watched.until(lambda wanted: bool(wanted.problems))
    assert "is a link to nothing; remove the link" in wanted.problems[0].reason
    assert watched.names() == {"a"}
    target.write_bytes(text(manifest("b")))
    await watched.until(pods("b"))
    link.unlink()
    await watched.until(pods())


def test_what_is_still_being_written_behind_a_link_is_not_read(tmp_path: Path) -> None:
    looks, target = Looks(tmp_path), tmp_path / "elsewhere"
    target.write_bytes(b"a")
    (tmp_path / "soft.yaml").symlink_to(target)
    looks.reads("soft.yaml")
    assert [looks.changed(["soft.yaml"]) for _ in range(2)] == [set(), set()]
    for half in (b"b", b"b and"):
        target.write_bytes(half)
        assert looks.changed(["soft.yaml"]) == set()
    assert looks.changed(["soft.yaml"]) == {"soft.yaml"}


async def test_a_link_that_lost_its_file_while_the_agent_was_down_keeps_its_pod(
    watched: Watched, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere.yaml").write_bytes(text(manifest("a")))
    (watched.path / "soft.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    await watched.until(pods("a"))
    await watched.stop()
    (tmp_path / "elsewhere.yaml").unlink()
    again = Watched(watched.path, tmp_path / "records.db")
    try:
        wanted = await again.until(pods("a"))
        assert "link to nothing" in wanted.problems[0].reason
    finally:
        await again.stop()


@pytest.mark.usefixtures("often")
async def test_a_good_version_that_could_not_be_kept_is_kept_at_a_later_look(watched: Watched, tmp_path: Path) -> None:
    with locked_by_another(tmp_path / "records.db"):
        (watched.path / "a.yaml").write_bytes(text(manifest("a")))
        await watched.until(pods("a"))
    said = len(watched.said)
    await watched.until(lambda _: len(watched.said) > said)
    await watched.stop()
    assert LastGood(Records(tmp_path / "records.db")).get("a.yaml") == text(manifest("a"))


async def test_a_directory_that_is_gone_stops_no_pod(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.05)
    (watched.path / "a.yaml").write_bytes(text(manifest("a")))
    await watched.until(pods("a"))
    moved = watched.path.with_name("moved")
    watched.path.rename(moved)
    await asyncio.sleep(0.3)
    assert watched.names() == {"a"}
    (moved / "b.yaml").write_bytes(text(manifest("b")))
    moved.rename(watched.path)
    await watched.until(pods("a", "b"))


async def test_a_file_that_broke_while_the_agent_was_down_keeps_its_pod(watched: Watched, tmp_path: Path) -> None:
    (watched.path / "a.yaml").write_bytes(text(manifest("a")))
    before = await watched.until(pods("a"))
    await watched.stop()
    (watched.path / "a.yaml").write_bytes(b"{")
    again = Watched(watched.path, tmp_path / "records.db")
    try:
        wanted = await again.until(pods("a"))
        assert [pod.uid for pod in wanted.pods.values()] == [pod.uid for pod in before.pods.values()]
        assert wanted.problems[0].fatal
    finally:
        await again.stop()
    (watched.path / "a.yaml").unlink()
    last = Watched(watched.path, tmp_path / "records.db")
    try:
        await last.until(pods())
    finally:
        await last.stop()
