"""kill -9 of the agent and of the driver at every step: afterwards everything is there, or nothing is."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from csi.hostpath.node import FAILPOINTS as DRIVER_STEPS
from nodeagent.volumes.csi_volume import FAILPOINTS as CSI_STEPS
from nodeagent.volumes.empty_dir import FAILPOINTS as EMPTY_DIR_STEPS
from runtime.linux.ledger import Effect, read_ledger
from runtime.linux.mounttable import mounts_beneath
from tests.support.csi_driver import NAME, DriverProcess
from tests.support.volume_agent import VolumeAgent
from tests.support.volume_documents import claim, claimed, inline, pod, volume

STORAGE = [volume(driver=NAME), claim()]
POD = pod(
    inline(NAME),
    claimed(),
    {"name": "plain", "emptyDir": {}},
    {"name": "memory", "emptyDir": {"medium": "Memory"}},
)

Starter = Callable[..., VolumeAgent]


@pytest.fixture
def agents(place: Path) -> Iterator[Starter]:
    with ExitStack() as stack:

        def start(failpoints: str = "") -> VolumeAgent:
            agent = VolumeAgent(place / "k", place / "ledger.db", failpoints)
            stack.callback(agent.kill)
            return agent

        yield start


def nothing_is_left(place: Path, driver: DriverProcess) -> None:
    entries: list[Effect] = read_ledger(place / "ledger.db")
    assert entries == []
    assert not mounts_beneath(place)
    pods, staged = place / "k/pods", place / f"k/plugins/kubernetes.io/csi/{NAME}"
    assert not pods.exists() or not list(pods.iterdir())
    assert not staged.exists() or not list(staged.iterdir())
    assert [path.name for path in (driver.data / "volumes").iterdir()] in ([], ["pv-1"])


def is_whole(paths: dict[str, str]) -> None:
    for name in ("scratch", "data", "memory"):
        assert len(mounts_beneath(paths[name])) == 1
    assert Path(paths["plain"]).is_dir()


@pytest.mark.parametrize("known", [True, False], ids=["pod-still-wanted", "pod-gone"])
@pytest.mark.parametrize("step", [*CSI_STEPS, *EMPTY_DIR_STEPS])
def test_kill_of_the_agent(agents: Starter, driver: DriverProcess, place: Path, step: str, known: bool) -> None:
    driver.start()
    doomed = agents(f"{step}=kill")
    if doomed.ask(do="mount", pod=POD, storage=STORAGE) is not None:
        assert doomed.ask(do="unmount", uid="uid-1") is None
    assert doomed.wait() == -signal.SIGKILL
    agent = agents()
    result = agent.ask(do="reconcile", known=["uid-1"] if known else [])
    assert result["left"] == {}
    assert result["strangers"] == []
    if known:
        is_whole(agent.ask(do="mount", pod=POD, storage=STORAGE))
        agent.ask(do="unmount", uid="uid-1")
    nothing_is_left(place, driver)


@pytest.mark.parametrize("step", DRIVER_STEPS)
def test_kill_of_the_driver(agents: Starter, driver: DriverProcess, place: Path, step: str) -> None:
    driver.start(f"{step}=kill")
    agent = agents()
    request = {"do": "mount", "pod": POD, "storage": STORAGE}
    with pytest.raises(AssertionError, match=r"UNAVAILABLE|DEADLINE"):
        is_whole(agent.ask(**request))
        agent.ask(do="unmount", uid="uid-1")
    assert driver.wait() == -signal.SIGKILL
    driver.start()
    is_whole(agent.ask(**request))
    agent.ask(do="unmount", uid="uid-1")
    nothing_is_left(place, driver)


def test_kill_of_both_at_once(agents: Starter, driver: DriverProcess, place: Path) -> None:
    driver.start()
    agent = agents()
    paths = agent.ask(do="mount", pod=POD, storage=STORAGE)
    (Path(paths["data"]) / "file").write_text("kept")
    agent.kill()
    driver.kill()
    agent = agents()
    result = agent.ask(do="reconcile", known=[])
    assert set(result["left"]) == {"pod uid-1"}
    assert "is not registered" in result["left"]["pod uid-1"]
    driver.start()
    assert agent.ask(do="reconcile", known=[])["left"] == {}
    nothing_is_left(place, driver)
    assert (driver.data / "volumes/pv-1/data/file").read_text() == "kept"
