"""What the operator sees while a node comes up: one line for each thing that is done, a spinner for what is not yet."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator


class Show:
    """Lines on stdout; on a terminal with colours and a spinner, in a pipe or a journal without."""

    def __init__(self) -> None:
        self._fancy = sys.stdout.isatty()

    def line(self, text: str = "") -> None:
        print(text, flush=True)

    def warn(self, text: str) -> None:
        print(f"! {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[list[str]]:
        """A step under way; what is put into the list is said of it when it is done."""
        began = time.monotonic()
        said: list[str] = []
        with self._spinner(what):
            yield said
        seconds = f"{time.monotonic() - began:.1f} s"
        self.line(f"{self._done()} {what:<20} {'; '.join([*said, seconds])}")

    def _done(self) -> str:
        return "\x1b[32m✓\x1b[0m" if self._fancy else "ok"

    def _spinner(self, what: str) -> contextlib.AbstractContextManager[object]:
        if not self._fancy:
            return contextlib.nullcontext()
        from rich.console import Console

        return Console().status(what)
