"""What every test shares: root probing, and the proof at the end of a run that nothing was left on the machine.

What is where:

    unit/         one module at a time, without root; unit/project: linters, types, imports and the tables of contents
    kernel/       parts on the real kernel, and what it says inside
    cri/          crid through its socket, against a real registry; the ecosystem's own programs as clients and judges
    escapes/      published escapes, each replayed (table.toml)
    crash/        kill -9 of everything at every step, and what becomes of each state
    robustness/   containers, clients and plugins that behave badly, beside others that must not notice
    node/         the agent, nodectl, a whole node
    bench/, vm/   run by hand: the benchmark, a machine with unified cgroup v2
    support/      what they are written with
"""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leftovers
from tests.support.registry import Registry

BASELINE = pytest.StashKey[dict[str, set[str]]]()
LEFT_BEHIND = pytest.StashKey[list[str]]()
NEEDS_ROOT = ("kernel", "cri", "node", "crash", "escapes", "robustness")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-leftovers-check",
        action="store_true",
        help="do not compare the machine before and after (for runs beside other runs)",
    )


def pytest_configure(config: pytest.Config) -> None:
    os.environ[leftovers.RUN_TOKEN] = secrets.token_hex(8)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background; what the tests start must hear it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.geteuid() == 0 and not config.getoption("--no-leftovers-check"):
        config.stash[BASELINE] = leftovers.snapshot()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    reason = pytest.mark.skip(reason="needs root: it makes namespaces, mounts and cgroups")
    for item in items:
        if item.path.relative_to(config.rootpath / "tests").parts[0] in NEEDS_ROOT:
            item.add_marker(reason)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the last fixture is gone the machine must be as it was: a run that leaves anything has failed."""
    before = session.config.stash.get(BASELINE, None)
    if before is None:
        return
    found = leftovers.left_behind(before)
    session.config.stash[LEFT_BEHIND] = found
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(LEFT_BEHIND, None)
    if found is None:
        return
    terminalreporter.section("left behind on this machine")
    for line in found or ["nothing: no process, mount, link, nft table, cgroup, loop device or file"]:
        terminalreporter.line(line)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path is short enough for the 107 bytes of a unix socket address."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="na-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A docker-registry for all tests that need none for themselves; a name means what was pushed last."""
    with Registry(tmp_path_factory.mktemp("registry")) as served:
        yield served
