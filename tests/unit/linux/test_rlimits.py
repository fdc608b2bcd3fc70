"""The limits of another process are those that getrlimit(2) tells it."""

from __future__ import annotations

import os
import resource

import pytest

from runtime.linux.rlimits import UNLIMITED, Limit, read_rlimits


def test_every_limit_that_python_knows() -> None:
    def named(number: int) -> Limit:
        soft, hard = (UNLIMITED if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(number))
        return Limit(soft, hard)

    names = [name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"]
    assert read_rlimits(os.getpid()) == read_rlimits("self")
    found = read_rlimits("self")
    assert {name: found[name] for name in names} == {name: named(getattr(resource, name)) for name in names}
    assert all(name.startswith("RLIMIT_") for name in found)


def test_a_process_that_has_ended() -> None:
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        read_rlimits(child)
