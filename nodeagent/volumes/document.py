"""Fields of a PersistentVolume or claim, read with their types checked: people write these documents by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from nodeagent.pods import quantity

T = TypeVar("T")


class FieldError(ValueError):
    """A field is missing or of the wrong type; the message starts with its path."""


class Fields:
    """One object of a document, and its path in it ("spec.csi"). Every method raises FieldError."""

    def __init__(self, value: Mapping[str, Any], path: str = "") -> None:
        self._value = value
        self.path = path

    def at(self, key: str) -> str:
        """The path of a field, for messages."""
        return f"{self.path}.{key}" if self.path else key

    def __contains__(self, key: str) -> bool:
        return self._value.get(key) is not None

    def plain(self) -> Mapping[str, Any]:
        """The object as it stands in the document."""
        return self._value

    def present(self) -> list[str]:
        return [key for key, value in self._value.items() if value is not None]

    def _get(self, key: str, kind: type[T], default: T, words: str) -> T:
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise FieldError(f"{self.at(key)}: must be {words}, not {type(value).__name__}")
        return value

    def object(self, key: str) -> Fields:
        return Fields(self._get(key, dict, {}, "an object"), self.at(key))

    def text(self, key: str, default: str = "") -> str:
        return self._get(key, str, default, "a string")

    def needed(self, key: str) -> str:
        """A string that has to be there."""
        if not (value := self.text(key)):
            raise FieldError(f"{self.at(key)}: required")
        return value

    def flag(self, key: str) -> bool:
        return self._get(key, bool, False, "true or false")

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._get(key, list, [], "a list")
        if not all(isinstance(value, str) for value in values):
            raise FieldError(f"{self.at(key)}: must be a list of strings")
        return tuple(values)

    def map(self, key: str) -> dict[str, str]:
        values = self._get(key, dict, {}, "an object")
        if not all(isinstance(word, str) for pair in values.items() for word in pair):
            raise FieldError(f"{self.at(key)}: keys and values must be strings; quote true, false and numbers")
        return dict(values)

    def bytes(self, key: str) -> int:
        """A quantity of bytes; 0 when it is not there."""
        value = self._value.get(key)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise FieldError(f"{self.at(key)}: must be a quantity such as 1Gi")
        try:
            amount = quantity.whole(value)
        except ValueError as error:
            raise FieldError(f"{self.at(key)}: {error}") from error
        if amount < 0:
            raise FieldError(f"{self.at(key)}: must not be negative")
        return amount
