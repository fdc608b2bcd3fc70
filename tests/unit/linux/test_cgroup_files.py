"""Interface files are read to their end, whatever the kernel gives at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.linux.cgroups import files

#: Made like cgroup.procs, by seq_file: a read gives whole lines of less than a page, however many more there are.
LONG = "/proc/self/maps"


def test_a_list_of_many_lines_is_read_whole() -> None:
    assert len(Path(LONG).read_text()) > 4096
    assert "[stack]" in files.read(LONG)


def test_a_file_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "READ_LIMIT", 4096)
    with pytest.raises(OSError, match=r"\[Errno 27\] larger than the limit of 4096 bytes: '/proc/self/maps'"):
        files.read(LONG)
