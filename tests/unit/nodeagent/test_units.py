"""The systemd units say what the design asks of them, and start commands that exist."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "nodeagent" / "systemd"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


@pytest.mark.parametrize("name", ["crid.service", "nodeagent.service"])
def test_a_daemon_is_stopped_alone_and_says_when_it_is_ready(name: str) -> None:
    service = unit(name)["Service"]
    assert (service["Type"], service["KillMode"], service["Restart"]) == ("notify", "process", "always")
    command = Path(service["ExecStart"].split()[0]).name
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert command in scripts


def test_the_runtime_has_cgroups_of_its_own_and_the_agent_comes_after_it() -> None:
    assert unit("crid.service")["Service"]["Delegate"] == "yes"
    assert unit("nodeagent.service")["Unit"]["After"] == "crid.service"
    assert "Requires" not in unit("nodeagent.service")["Unit"], "a runtime that restarts must not restart the agent"
