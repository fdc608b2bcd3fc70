"""What this host can and cannot do for a node, each with what to do about it. Looks, and changes nothing."""

from __future__ import annotations

from nodeagent.doctor.check import Check, Verdict
from nodeagent.doctor.kernel_checks import KERNEL_CHECKS
from nodeagent.doctor.node_checks import NODE_CHECKS, Settings

__all__ = ["Check", "Settings", "Verdict", "examine"]


def examine(settings: Settings) -> list[Check]:
    """Every check, in the order in which a node needs them."""
    return [check() for check in KERNEL_CHECKS] + [check(settings) for check in NODE_CHECKS]
