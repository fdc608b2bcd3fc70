"""The shim's poll loop: epoll, callbacks by fd, and a few timers. Nothing in it blocks, so no callback may.

A callback that raises ends nothing but itself: the error goes to the shim's log, because one container's trouble must
not cost the others their parent.

What is imported here is imported by name: a module that is named each time is one more page of a shim.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from select import EPOLL_CLOEXEC, EPOLLIN, EPOLLOUT, epoll
from time import monotonic
from typing import Final

READ: Final = EPOLLIN
WRITE: Final = EPOLLOUT
_EVENTS_MAX: Final = 32


class Timer:
    """A callback at a time; cancel() makes it never happen."""

    __slots__ = ("_callback", "at")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self._callback: Callable[[], None] | None = callback

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at

    def cancel(self) -> None:
        """Forget the callback."""
        self._callback = None

    def take(self) -> Callable[[], None] | None:
        """The callback, once."""
        callback, self._callback = self._callback, None
        return callback


class Loop:
    """Calls back when fds are ready or times have come, until stop()."""

    __slots__ = ("_callbacks", "_epoll", "_on_error", "_running", "_timers")

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        self._running = True
        self._on_error = on_error

    def open(self) -> None:
        """Begin to watch; after the zygote's fork, because an epoll fd would be shared across it."""
        self._epoll = epoll(flags=EPOLL_CLOEXEC)

    def watch(self, fd: int, callback: Callable[[], None], events: int = READ) -> None:
        """Call back whenever `fd` is ready; it must be unwatched before it is closed."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Undo watch(); no error when it is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back once, after `seconds`."""
        timer = Timer(monotonic() + seconds, callback)
        heappush(self._timers, timer)
        return timer

    def report(self, error: Exception) -> None:
        """Put an error where those of callbacks go."""
        self._on_error(error)

    def stop(self) -> None:
        """Make run() return after the current callback."""
        self._running = False

    def run(self) -> None:
        """Serve until stop()."""
        while self._running:
            self.turn()

    def turn(self) -> None:
        """Wait until something is ready, and call back for all that is."""
        for fd, _ in self._epoll.poll(self._timeout(), _EVENTS_MAX):
            callback = self._callbacks.get(fd)  # an earlier callback of this round may have unwatched it
            if callback is not None and self._running:
                self.attempt(callback)
        self._run_timers()

    def close(self) -> None:
        """Give the epoll fd back; the loop is not used any more."""
        self._epoll.close()

    def _timeout(self) -> float | None:
        return max(0.0, self._timers[0].at - monotonic()) if self._timers else None

    def _run_timers(self) -> None:
        now = monotonic()
        while self._timers and self._timers[0].at <= now:
            callback = heappop(self._timers).take()
            if callback is not None:
                self.attempt(callback)

    def attempt(self, callback: Callable[[], None]) -> None:
        """Call it; what it raises goes where the errors of callbacks go."""
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - the boundary described above
            self._on_error(error)
