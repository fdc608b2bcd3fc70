"""One-time tokens: the URL that a client gets from Exec, Attach or PortForward is its only credential.

A token names one accepted request, works once, and only for a minute. The number that may wait is bounded, so a client
that asks and never connects costs a fixed amount of memory.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

LIFETIME = 60.0  # seconds, as the kubelet's own streaming library has it
MAX_WAITING = 1000


class TooManyTokens(Exception):
    """As many requests wait for their client as may; later ones are welcome again within a minute."""


class Tokens(Generic[T]):
    """Requests that wait for their clients, by token; each is given out once. `lifetime` in seconds of `clock`."""

    def __init__(
        self,
        lifetime: float = LIFETIME,
        max_waiting: int = MAX_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lifetime = lifetime
        self._max_waiting = max_waiting
        self._clock = clock
        self._waiting: dict[str, tuple[float, T]] = {}  # in the order of issue, which is that of expiry

    def issue(self, request: T) -> str:
        """A URL-safe token for the request. Raises TooManyTokens."""
        self._expire()
        if len(self._waiting) >= self._max_waiting:
            raise TooManyTokens(
                f"{self._max_waiting} streaming requests wait for their clients: connect to the URLs that were given"
                f" out, or try again in {self._lifetime:.0f} s"
            )
        token = secrets.token_urlsafe(16)
        self._waiting[token] = (self._clock() + self._lifetime, request)
        return token

    def redeem(self, token: str) -> T | None:
        """The request behind the token, once; None when it is unknown, used or expired."""
        self._expire()
        _, request = self._waiting.pop(token, (0.0, None))
        return request

    def _expire(self) -> None:
        now = self._clock()
        while self._waiting:
            token = next(iter(self._waiting))
            if self._waiting[token][0] > now:
                return
            del self._waiting[token]
