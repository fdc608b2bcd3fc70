"""sd_notify(3): to a path, to an abstract name, to nobody, and to somebody who is gone."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import pytest

from runtime.linux.notify import VARIABLE, notify


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_hears_it(short_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@nodeagent-{secrets.token_hex(8)}" if abstract else str(short_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        monkeypatch.setenv(VARIABLE, name)
        assert notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_without_a_manager_nothing_happens(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not notify("READY=1")
    for address in (str(short_path / "gone"), "relative", ""):
        monkeypatch.setenv(VARIABLE, address)
        assert not notify("READY=1")
