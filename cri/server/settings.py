"""Settings as an operator writes them: one TOML table, read key by key.

Each section of the configuration stands beside what it configures and reads its own table; what is common to all of
them stands here: a value of the wrong type, a number out of range and a misspelt key are errors that name file, table
and key, never a setting silently not made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

P = TypeVar("P", Path, None)


class ConfigError(ValueError):
    """A setting that crid cannot work with; the message names the file and the key."""


class Table:
    """A TOML table that remembers which of its keys were asked for; `name` is how errors call it.

    Every method takes a key away and returns its value, or the default where it is not set. Raises ConfigError.
    """

    def __init__(self, values: dict[str, Any], name: str) -> None:
        self.name = name
        self._values = dict(values)

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        return str(self._take(key, str, default))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, empty by default."""
        found = self._take(key, list, [])
        if not all(isinstance(item, str) for item in found):
            raise ConfigError(f"{self.name}: {key} is {found!r}, but must be a list of strings")
        return tuple(found)

    def flag(self, key: str) -> bool:
        """True or false; false by default."""
        return bool(self._take(key, bool, False))

    def number(self, key: str, default: int, most: int) -> int:
        """A whole number from 0 to `most`."""
        value = self._values.pop(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise ConfigError(f"{self.name}: {key} is {value!r}, but must be a whole number from 0 to {most}")
        return value

    def seconds(self, key: str, default: float, most: int) -> float:
        """A duration above 0."""
        value = self._values.pop(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most:
            raise ConfigError(f"{self.name}: {key} is {value!r}, but must be seconds above 0, at most {most}")
        return float(value)

    def path(self, key: str, default: Path) -> Path:
        """A path, from the working directory if it is relative."""
        return Path.cwd() / self.text(key, str(default))

    def paths(self, key: str, default: Sequence[Path]) -> tuple[Path, ...]:
        """A list of paths, as they are written."""
        return tuple(map(Path, self.texts(key))) if key in self._values else tuple(default)

    def absolute(self, key: str, default: P) -> Path | P:
        """A path that does not depend on where the daemon was started."""
        value = self._values.pop(key, None)
        if value is None:
            return default
        if not isinstance(value, str) or not value.startswith("/"):
            raise ConfigError(f"{self.name}: {key} is {value!r}, but must be an absolute path")
        return Path(value)

    def names(self) -> list[str]:
        """The keys that nobody has asked for yet."""
        return list(self._values)

    def table(self, key: str) -> Table:
        """A table in this one; empty by default."""
        return Table(self._take(key, dict, {}), f"{self.name} [{key}]")

    def refuse_rest(self) -> None:
        """A misspelt key would otherwise be a setting silently not made."""
        if self._values:
            raise ConfigError(f"{self.name}: unknown key {next(iter(self._values))!r}")

    def _take(self, key: str, kind: type, default: Any) -> Any:
        value = self._values.pop(key, default)
        if not isinstance(value, kind):
            raise ConfigError(f"{self.name}: {key} is {value!r}, but must be of type {kind.__name__}")
        return value
