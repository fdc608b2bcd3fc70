"""The command crid: what it imports for what it is asked."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cri.server import main, reset, serving, starting
from cri.server.config import Config
from runtime.client import ZygoteLauncher


def test_a_daemon_that_starts_waits_for_no_module_that_it_may_never_use() -> None:
    code = "import sys, cri.server.serving; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {"pyroute2", "yaml", "cri.server.reset"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "module", "function", "rest"),
    [
        pytest.param([], starting, "start", [], id="no-words"),
        pytest.param(["--root", "reset"], starting, "start", ["--root", "reset"], id="options"),
        pytest.param(["reset", "--purge"], reset, "main", ["--purge"], id="verb"),
    ],
)
def test_the_first_word_chooses(
    monkeypatch: pytest.MonkeyPatch, words: list[str], module: object, function: str, rest: list[str]
) -> None:
    asked: list[list[str]] = []

    def run(given: list[str]) -> int:
        asked.append(given)
        return 7

    monkeypatch.setattr(module, function, run)
    try:
        assert main.main(words) == 7
    finally:
        gc.enable()
    assert asked == [rest]


@pytest.mark.parametrize("words", [[], ["reset"], ["import", "--busybox", "localhost/demo:1"]])
def test_a_database_that_is_none_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(ZygoteLauncher, "begin", lambda self: None)
    (config := tmp_path / "crid.toml").write_text(f'root = "{tmp_path}/root"\nstate = "{tmp_path}/state"\n')
    (tmp_path / "root").mkdir(mode=0o700)
    (tmp_path / "root" / "ledger.db").write_text("no database " * 1000)
    assert main.main([*words, "--config", str(config)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(" ".join(["crid", *words[:1]]) + ": ") and f"{tmp_path}/root/ledger.db" in line


def test_a_daemon_collects_garbage_once_it_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun: list[str] = []

    async def serve(config: Config, zygote: object) -> None:
        assert config.root == tmp_path / "root"
        begun.append("garbage is collected" if gc.isenabled() else "garbage is kept")

    monkeypatch.setattr(serving, "serve", serve)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(ZygoteLauncher, "begin", lambda self: begun.append("zygote"))
    assert main.main(["--root", str(tmp_path / "root"), "--state", str(tmp_path / "state")]) == 0
    assert begun == ["zygote", "garbage is collected"]
