"""The doctor on this machine: it tells the truth, and leaves the machine as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodeagent.doctor import FAIL, OK, Places, examine, features, probe
from runtime.linux.cgroups import detect


def places(directory: Path) -> Places:
    return Places(str(directory / "cri.sock"), directory / "agent.sock", directory, directory, directory, directory)


async def test_features_are_tried_and_nothing_is_left(tmp_path: Path) -> None:
    links = set(os.listdir("/sys/class/net"))
    found = {each.subject: each for each in await examine(places(tmp_path))}
    assert found["mount namespace"].verdict == found["openat2"].verdict == found["overlay"].verdict == OK
    assert list(tmp_path.iterdir()) == []
    assert not [name for base in detect().directories() for name in os.listdir(base) if "doctor" in name]
    assert not {name for name in set(os.listdir("/sys/class/net")) - links if "doctor" in name}
    assert "doctor" not in Path("/proc/self/mountinfo").read_text()
    assert (found["runtime"].found, found["CSI"].verdict) == (f"{tmp_path}/cri.sock: nobody answers", OK)


async def test_networks_that_cannot_work_are_told(tmp_path: Path) -> None:
    (tmp_path / "10-broken.conflist").write_text("{")
    (tmp_path / "20-foreign.conflist").write_text('{"name": "n", "plugins": [{"type": "bridge"}, {"type": "alien"}]}')
    found = {each.subject: each for each in await examine(places(tmp_path))}
    assert "cannot be read" in found["CNI 10-broken.conflist"].found
    assert "no plugin alien" in found["CNI 20-foreign.conflist"].follows


def test_every_probe_has_words_for_its_failure() -> None:
    assert probe.PROBES.keys() == features.ABSENCES.keys()


def _fails(directory: str) -> str:
    error = OSError("the kernel says no")
    error.add_note("mount(2)")
    raise error


def test_a_failing_probe_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    works, detail = probe.in_child(_fails, str(tmp_path))
    assert (works, detail) == (False, "the kernel says no; mount(2)")
    answers = {name: {"works": works, "detail": detail} for name in features.ABSENCES}
    monkeypatch.setattr(features, "_answers", lambda root: answers)
    found = {each.subject: each for each in features.try_all(tmp_path)}
    assert found["overlay"].verdict == FAIL and "modprobe overlay" in found["overlay"].remedy
