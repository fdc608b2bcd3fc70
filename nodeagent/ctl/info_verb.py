"""nodectl info: who is there, and how they are."""

from __future__ import annotations

import argparse
from importlib import metadata
from typing import Any

from cri.client import CriError
from nodeagent.api.client import AgentUnreachable, get
from nodeagent.ctl.connect import QUICK, agent_socket, connect, cri_address
from nodeagent.ctl.output import emit_json, plain, table


def arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(given: argparse.Namespace) -> int:
    runtime, agent = _runtime(given), _agent(given)
    facts: dict[str, Any] = {"nodectl": metadata.version("nodeagent"), "runtime": runtime, "agent": agent}
    if given.output == "json":
        emit_json(facts)
    else:
        print(table(("WHAT", "VALUE"), _rows(facts)))
    return 0 if runtime.get("version") and agent.get("healthy") else 1


def _runtime(given: argparse.Namespace) -> dict[str, Any]:
    facts: dict[str, Any] = {"socket": cri_address(given)}
    try:
        with connect(given) as cri:
            version, status = cri.Version(timeout=QUICK), cri.Status(timeout=QUICK)
    except CriError as error:
        return facts | {"problem": error.details}
    conditions = {each["type"]: each for each in map(plain, status.status.conditions)}
    return facts | {
        "name": version.runtime_name,
        "version": version.runtime_version,
        "api": version.runtime_api_version,
        **{name: each.get("status", False) or each.get("message", False) for name, each in conditions.items()},
    }


def _agent(given: argparse.Namespace) -> dict[str, Any]:
    facts: dict[str, Any] = {"socket": str(agent_socket(given))}
    try:
        health: dict[str, Any] = get(agent_socket(given), "/healthz")
    except AgentUnreachable as error:
        return facts | {"problem": str(error)}
    return facts | health


def _rows(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{name}.")
        else:
            shown = ", ".join(map(str, value)) or "-" if isinstance(value, list) else str(value)
            rows.append((prefix + name, shown))
    return rows
