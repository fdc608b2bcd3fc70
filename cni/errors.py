"""What can go wrong with a network, in the words and numbers of the CNI specification (SPEC.md, "Error").

A plugin's error travels as JSON with a code, a message and details; these classes are its form in Python, on both
sides: our plugins raise them, and what another plugin printed is raised as one.
"""

from __future__ import annotations

import enum
from typing import Any


class ErrorCode(enum.IntEnum):
    """Codes below 100 are the specification's; 8 and 999 are what its reference library uses besides."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    INVALID_NETNS = 8
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    INTERNAL = 999


class CniError(Exception):
    """An operation on a network failed: `message` says what and for which object, `details` why and what to do."""

    code: int = ErrorCode.INTERNAL

    def __init__(self, message: str, details: str = "", *, code: int | None = None) -> None:
        super().__init__(message, details)
        self.message = message
        self.details = details
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}; {self.details}" if self.details else self.message

    def to_json(self, version: str) -> dict[str, Any]:
        """The specification's error object."""
        doc: dict[str, Any] = {"cniVersion": version, "code": int(self.code), "msg": self.message}
        return doc | ({"details": self.details} if self.details else {})


class InvalidConfig(CniError):
    """A network configuration says something that cannot be done."""

    code = ErrorCode.INVALID_CONFIG


class UnsupportedField(CniError):
    """A plugin was asked for an option that it does not have; the message names key and value."""

    code = ErrorCode.UNSUPPORTED_FIELD


class IncompatibleVersion(CniError):
    """No version of the protocol is known to both sides."""

    code = ErrorCode.INCOMPATIBLE_VERSION


class InvalidEnvironment(CniError):
    """A parameter of the attachment (container id, interface name, ...) is missing or malformed."""

    code = ErrorCode.INVALID_ENVIRONMENT


class InvalidNetns(CniError):
    """The network namespace of the attachment is missing, or is the host's own."""

    code = ErrorCode.INVALID_NETNS


class DecodingFailure(CniError):
    """Something that should be JSON of a known shape is not."""

    code = ErrorCode.DECODING_FAILURE


class TryAgainLater(CniError):
    """A passing condition: a lock that is held, an operation on the same container that is still running."""

    code = ErrorCode.TRY_AGAIN_LATER


class NotAvailable(CniError):
    """The plugin cannot serve ADD now: no address is left, a program or library is missing."""

    code = ErrorCode.NOT_AVAILABLE


class PluginFailed(CniError):
    """Another program failed as a plugin: it reported an error, hung, or answered something that is no answer."""


class NetworkNotReady(CniError):
    """Pods cannot be given a network now; the message is fit for the NetworkReady condition."""

    code = ErrorCode.NOT_AVAILABLE
