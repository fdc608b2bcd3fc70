"""Containers that are paused while another one is born go on afterwards, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime import watchers
from runtime.watchers import Watchers


class Paused:
    """In the place of cgroups: what was asked of which, and the errors of those that do not thaw."""

    def __init__(self, errors: dict[str, OSError]) -> None:
        self.asked: list[tuple[str, bool]] = []
        self._errors = errors

    def __call__(self, path: str) -> Paused:
        self._path = path
        return self

    def freeze(self, frozen: bool) -> None:
        self.asked.append((self._path, frozen))
        if not frozen and self._path in self._errors:
            raise self._errors[self._path]


def record(name: str) -> dict[str, Any]:
    capabilities = {"bounding": ["CAP_SYS_PTRACE"]}
    return {"container": name, "cgroup": f"/{name}", "process": {"capabilities": capabilities}}


async def pause(names: str) -> None:
    found = Watchers("/nowhere", known=True)
    for name in names:
        found.add(record(name))
    async with found.paused():
        pass


def test_one_that_does_not_go_on_keeps_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cgroups = Paused({"/a": TimeoutError("cgroup /a is not thawed after 5 s"), "/b": FileNotFoundError("/b")})
    monkeypatch.setattr(watchers, "Cgroup", cgroups)
    with pytest.raises(TimeoutError, match="cgroup /a is not thawed"):
        asyncio.run(pause("abc"))
    assert cgroups.asked == [(path, frozen) for frozen in (True, False) for path in ("/a", "/b", "/c")]


def test_one_that_ends_meanwhile_fails_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "Cgroup", Paused({"/a": FileNotFoundError("/a")}))
    asyncio.run(pause("ab"))
