"""Names that the shell completes, asked of the runtime; silent when it does not answer at once."""

from __future__ import annotations

import argparse
from typing import Any

from cri.client import CriClientSync, CriError

SECONDS = 1.0


def pods(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    try:
        with CriClientSync(parsed_args.cri) as cri:
            found = cri.ListPodSandbox(timeout=SECONDS).items
    except CriError:
        return []
    names = {each.metadata.name for each in found} | {
        f"{each.metadata.namespace}/{each.metadata.name}" for each in found if "/" in prefix
    }
    return sorted(names)


def containers(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Names of containers, for -c."""
    try:
        with CriClientSync(parsed_args.cri) as cri:
            return sorted({each.metadata.name for each in cri.ListContainers(timeout=SECONDS).containers})
    except CriError:
        return []


def images(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    try:
        with CriClientSync(parsed_args.cri) as cri:
            return sorted(tag for each in cri.ListImages(timeout=SECONDS).images for tag in each.repo_tags)
    except CriError:
        return []


def completed(action: argparse.Action, completer: Any) -> None:
    """Tell argcomplete how to complete an argument."""
    action.completer = completer  # type: ignore[attr-defined]
