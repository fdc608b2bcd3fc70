"""Named places where a test makes a daemon die, fail or hang: kill -9 at every step, without sleeps or luck.

    NODEAGENT_FAILPOINTS="crid.run_sandbox.after_shim=kill,agent.sync.before_create=error@3" crid ...

`name=action` or `name=action@n`; with `@n` only the n-th arrival acts. Actions: `kill` (SIGKILL to itself, as
the OOM killer would), `error` (raises FailpointError), `hang` (sleeps an hour: a daemon that answers no more).
The variable is read once at import. Unset, a failpoint costs one truth test of an empty dict, so it can stay
in production code on any path.
"""

from __future__ import annotations

import os
import signal
import time

VARIABLE = "NODEAGENT_FAILPOINTS"
ACTIONS = ("kill", "error", "hang")
HANG_SECONDS = 3600.0


class FailpointError(RuntimeError):
    """The failure that a test ordered."""


class _Armed:
    """What to do at one name, and how often it was reached."""

    __slots__ = ("action", "arrivals", "nth")

    def __init__(self, action: str, nth: int) -> None:
        self.action = action
        self.nth = nth
        self.arrivals = 0


_armed: dict[str, _Armed] = {}


def failpoint(name: str) -> None:
    """Mark a place that a test can break; does nothing unless that name is armed."""
    if _armed and name in _armed:
        _arrive(name)


def arm(text: str) -> None:
    """Replace what is armed by `text` (the form of the environment variable; empty disarms).

    Raises ValueError for an entry that is not name=action[@n]: a misspelt failpoint would make a test pass for nothing.
    """
    parsed = dict(_parse(entry.strip()) for entry in text.split(",") if entry.strip())
    _armed.clear()
    _armed.update(parsed)


def _parse(entry: str) -> tuple[str, _Armed]:
    name, _, rest = entry.partition("=")
    action, at, count = rest.partition("@")
    if not name or action not in ACTIONS or (at and not (count.isdecimal() and int(count) > 0)):
        raise ValueError(f"{VARIABLE}: {entry!r} is not name={'|'.join(ACTIONS)}[@n]")
    return name, _Armed(action, int(count) if at else 0)


def _arrive(name: str) -> None:
    armed = _armed[name]
    armed.arrivals += 1
    if armed.nth not in (0, armed.arrivals):
        return
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if armed.action == "hang":
        time.sleep(HANG_SECONDS)
        return
    raise FailpointError(f"failpoint {name} (arrival {armed.arrivals})")


arm(os.environ.get(VARIABLE, ""))
