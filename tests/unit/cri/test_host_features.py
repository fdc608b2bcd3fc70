"""What this host can do is found out by trying: what works is known for good, a failure is not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from cri.server import handlers as handlers_module
from cri.server.config import Config, RuntimeConfig
from cri.server.handlers import Handlers
from cri.server.security import user_namespaces
from cri.server.security.user_namespaces import UserNamespaces
from runtime.client import Runtime


async def test_a_trial_of_user_namespaces_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = create_autospec(Runtime, instance=True)
    runtime.try_user_namespace.side_effect = ["the zygote did not answer in time", ""]
    userns = UserNamespaces(runtime, Path("/images"))
    assert await asyncio.gather(*(userns.problem() for _ in range(3))) == ["the zygote did not answer in time"] * 3
    monkeypatch.setattr(user_namespaces, "RETRY_SECONDS", 0.0)
    assert [await userns.problem() for _ in range(3)] == ["", "", ""]
    assert runtime.try_user_namespace.call_count == 2


async def test_a_runtime_that_gave_no_answer_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, busy, asked = tmp_path / "runtime", tmp_path / "busy", tmp_path / "asked"
    program.write_text(
        f'#!/bin/sh\necho >> {asked}\n[ ! -e {busy} ] || exec sleep 1000\necho \'{{"mountOptions": ["rro"]}}\'\n'
    )
    program.chmod(0o755)
    busy.touch()
    monkeypatch.setattr(handlers_module, "FEATURES_SECONDS", 0.1)
    monkeypatch.setattr(handlers_module, "MOMENT", 5.0)
    handlers = Handlers(Config(runtimes=(RuntimeConfig("slow", path=str(program)),)))
    assert not (await handlers.all())["slow"].recursive_read_only
    busy.unlink()
    assert not (await handlers.all())["slow"].recursive_read_only, "not at once: who hangs is not asked all the time"
    monkeypatch.setattr(handlers_module, "FEATURES_SECONDS", 5.0)
    monkeypatch.setattr(handlers_module, "RETRY_SECONDS", 0.0)
    for _ in range(2):
        assert (await handlers.all())["slow"].recursive_read_only
    assert len(asked.read_text()) <= 2
