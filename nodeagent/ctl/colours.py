"""Which words are good news: the colours of states in tables."""

from __future__ import annotations

_GOOD = ("Running", "ok")
_DONE = ("Completed", "Succeeded", "Created", "Exited (0)")
_WAITS = ("Pending", "ContainerCreating", "PodInitializing", "Terminating", "warn", "Starting")


def state(text: str) -> str:
    """A style for the state of a pod or container, or the verdict of a check."""
    if text in _GOOD:
        return "green"
    if text.startswith(_DONE) or text == "-":
        return "dim"
    return "yellow" if text in _WAITS else "red"
