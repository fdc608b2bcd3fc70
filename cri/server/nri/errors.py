"""What can go wrong with a plugin, by what follows from it."""

from __future__ import annotations

from grpc import StatusCode

from cri.server.errors import CriFault


class NriFault(CriFault):
    """A request fails because of a plugin, which the message names."""

    code = StatusCode.FAILED_PRECONDITION


class PluginRefused(Exception):
    """The plugin has answered with an error: `code` is a gRPC status code, the text is the plugin's own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message[:2000] or f"status {code}")
        self.code = code


class PluginLost(Exception):
    """The plugin did not answer: its connection is closed, or what it sent is no answer."""


class PluginTimeout(PluginLost, TimeoutError):
    """The plugin did not answer in time."""


class ProtocolError(PluginLost):
    """What came is not ttrpc in NRI's multiplexer."""
