"""The places where a test can kill the agent (runtime.linux.failpoints), in the order of a pod's life."""

from __future__ import annotations

STARTING = (
    "agent.sync.before_sandbox",
    "agent.sync.after_sandbox",
    "agent.sync.before_create",
    "agent.sync.after_create",
    "agent.sync.after_start",
)
ENDING = ("agent.end.after_stop", "agent.end.after_remove", "agent.teardown.after_volumes")
