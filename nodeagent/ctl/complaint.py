"""What an operator is told when a command cannot be done."""

from __future__ import annotations

FAILURE = 1
USAGE = 2


class Complaint(Exception):
    """One line for stderr: what failed and what to do next. `status` is nodectl's exit status."""

    def __init__(self, message: str, status: int = FAILURE) -> None:
        super().__init__(message)
        self.status = status
