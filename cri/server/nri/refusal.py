"""Why an adjustment cannot be carried out, before it is known whose it is."""

from __future__ import annotations


class Refusal(Exception):
    """`key` is the entry of a field that has several, `field` the owners' field where a step has more than one."""

    def __init__(self, why: str, key: str | None = None, field: int = 0) -> None:
        super().__init__(why)
        self.key = key.removeprefix("-") if key else None
        self.field = field
