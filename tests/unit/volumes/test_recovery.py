"""What is left over and tried again: when, with nothing mounted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pytest

from nodeagent.volumes import recovery
from nodeagent.volumes.csi_volume import CsiVolumes
from nodeagent.volumes.errors import VolumeError, VolumesError
from nodeagent.volumes.layout import Layout
from nodeagent.volumes.recovery import Leftovers
from runtime.linux.ledger import Effect


class NothingStaged:
    def staged(self) -> tuple[Iterable[Effect], set[str]]:
        return [], set()


async def test_a_driver_that_registers_while_others_are_tried_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "FIRST_PAUSE", 60.0)
    away = VolumesError([VolumeError("data", "its driver is away")])
    begun, hanging, tries = asyncio.Event(), asyncio.Event(), 0

    async def unmount(uid: str) -> None:
        nonlocal tries
        tries += 1
        begun.set()
        await hanging.wait()
        if tries < 2:
            raise away

    left = Leftovers(Layout(tmp_path), cast(CsiVolumes, NothingStaged()), unmount)
    left.add("uid-1", away)
    await asyncio.sleep(0)
    left.try_soon("first.example")
    async with asyncio.timeout(5):
        await begun.wait()
        left.try_soon("second.example")
        hanging.set()
        while left.pods:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert tries == 2
    await left.close()
