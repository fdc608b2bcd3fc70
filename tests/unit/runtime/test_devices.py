"""The host's devices for a privileged container, while the host's hardware comes and goes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from runtime.devices import host_devices


class Entry:
    """What os.scandir() says of a name whose file is that of `target` by the time it is looked at."""

    def __init__(self, directory: str, name: str, target: str) -> None:
        self.name, self.path = name, f"{directory}/{name}"
        self._target = target

    def is_symlink(self) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        return os.stat(self._target, follow_symlinks=follow_symlinks)


def test_devices_that_vanish_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {
        "/dev": {"sdb": "/dev/never", "bus": "/", "input": "/", "null": "/dev/null"},
        "/dev/bus": {"zero": "/dev/zero"},
    }

    @contextlib.contextmanager
    def scandir(path: str) -> Iterator[Iterator[Entry]]:
        if path not in tree:
            raise FileNotFoundError(path)
        yield iter([Entry(path, name, target) for name, target in tree[path].items()])

    monkeypatch.setattr(os, "scandir", scandir)
    found = [(device["path"], device["major"], device["minor"]) for device in host_devices()]
    assert found == [("/dev/bus/zero", 1, 5), ("/dev/null", 1, 3)]
