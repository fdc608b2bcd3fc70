"""The operator's terminal, lent to a command in a container: every key goes there, and every change of size."""

from __future__ import annotations

import asyncio
import os
import signal
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Every key is passed on; the terminal is put right again, also when the session fails."""
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def sizes(descriptor: int) -> AsyncIterator[tuple[int, int]]:
    """(rows, columns) now, and whenever the window changes."""
    changed = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, changed.set)
    while True:
        size = os.get_terminal_size(descriptor)
        yield size.lines, size.columns
        await changed.wait()
        changed.clear()
