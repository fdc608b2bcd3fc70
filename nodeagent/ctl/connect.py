"""The sockets that a verb talks to, from its arguments."""

from __future__ import annotations

import argparse
from pathlib import Path

from cri.client import CriClient, CriClientSync

QUICK = 10.0
"""Seconds that a person waits for an answer before thinking that nothing works."""


def cri_address(given: argparse.Namespace) -> str:
    text: str = given.cri or f"{given.state}/cri.sock"
    return text.removeprefix("unix://")


def agent_socket(given: argparse.Namespace) -> Path:
    return Path(given.agent.removeprefix("unix://") or f"{given.state}/agent.sock")


def connect(given: argparse.Namespace) -> CriClientSync:
    return CriClientSync(cri_address(given))


def connect_async(given: argparse.Namespace) -> CriClient:
    """Within a running loop."""
    return CriClient(cri_address(given))
