"""The cgroup of a pod is made by one at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from runtime import podcgroup
from runtime.errors import from_doc, to_doc
from runtime.linux.cgroups import Layout


def test_a_lock_that_is_not_let_go_of_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podcgroup, "LOCK_SECONDS", 0.01)
    layout, owner = Layout({}, str(tmp_path / "cgroup"), frozenset()), tmp_path / "sandboxes"
    owner.mkdir()
    holder = os.open(owner, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match=f"held by another process for 0.01 s: '{owner}'") as caught:
            podcgroup.make("/kubepods/pod1", {}, layout, str(owner))
    finally:
        os.close(holder)
    assert not os.path.exists(layout.v2)
    assert isinstance(from_doc(to_doc(caught.value)), TimeoutError)  # as crid is told
