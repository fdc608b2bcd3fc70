"""The command crid: what it imports for what it is asked."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from cri.server import main, reset, serving


def test_a_daemon_that_starts_waits_for_no_module_that_it_may_never_use() -> None:
    code = "import sys, cri.server.serving; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {"pyroute2", "yaml", "cri.server.reset"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "module", "function", "rest"),
    [
        pytest.param([], serving, "serve", [], id="no-words"),
        pytest.param(["--root", "reset"], serving, "serve", ["--root", "reset"], id="options"),
        pytest.param(["reset", "--purge"], reset, "main", ["--purge"], id="verb"),
    ],
)
def test_the_first_word_chooses(
    monkeypatch: pytest.MonkeyPatch, words: list[str], module: object, function: str, rest: list[str]
) -> None:
    asked: list[list[str]] = []

    def run(given: list[str]) -> int:
        assert gc.isenabled()
        asked.append(given)
        return 7

    monkeypatch.setattr(module, function, run)
    assert main.main(words) == 7
    assert asked == [rest]
