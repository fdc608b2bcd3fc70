"""Back-off: 10 s, doubling to 5 min, forgotten after 10 min without failure (the kubelet's numbers).

For containers that ran, the back-off is a property of the container: each is created with the time that is to pass
after its end, so the next is computed from what the runtime tells, and a restarted agent goes on where it was. The
first restart is at once. For what fails before there is a container (a pull, a mount, a sandbox) it is in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nodeagent.sync.observed import SECOND, Container

FIRST = 10.0
LONGEST = 300.0
#: Seconds that a container must run for its past to be forgotten.
FORGIVEN = 600.0


def after_end(ended: Container) -> int:
    """When the next one may start, in ns since the epoch."""
    return ended.finished_at + round(_pause(ended) * SECOND)


def next_backoff(ended: Container) -> float:
    """Seconds to note on the container that follows `ended`."""
    pause = _pause(ended)
    return min(2 * pause, LONGEST) if pause else FIRST


def _pause(ended: Container) -> float:
    return 0.0 if ended.ran >= FORGIVEN else min(max(ended.backoff, 0.0), LONGEST)


@dataclass(slots=True)
class Backoff:
    """Of repeated failures of one thing. Times are in ns since the epoch."""

    first: float = field(default_factory=lambda: FIRST)
    longest: float = LONGEST
    pause: float = field(default=0.0, init=False)
    until: int = field(default=0, init=False)

    def failed(self, now: int) -> int:
        """Note a failure: when to try again."""
        idle = now - self.until > FORGIVEN * SECOND
        self.pause = self.first if idle or not self.pause else min(2 * self.pause, self.longest)
        self.until = now + round(self.pause * SECOND)
        return self.until

    def succeeded(self) -> None:
        self.pause, self.until = 0.0, 0
