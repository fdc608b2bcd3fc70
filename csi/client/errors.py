"""The one exception of this package, and the one place where gRPC's are turned into it."""

from __future__ import annotations

from pathlib import Path

import grpc.aio

#: A driver's words are shown to people and kept in status fields: a hostile one shall not fill them.
DETAIL_LIMIT = 1000


class CsiError(Exception):
    """A call to a driver failed.

    `subject` says who was called ("CSI driver NAME"), `code` is the gRPC status name (NOT_FOUND, UNAVAILABLE, ...),
    `detail` the driver's words, `volume` the volume id where the call was about one. Whatever the code, the work may
    have been done all the same: the caller repeats the call or undoes it (CSI spec, "Error Scheme").
    """

    def __init__(self, subject: str, rpc: str, code: str, detail: str, *, volume: str = "", remedy: str = "") -> None:
        what = f"{subject}: {rpc}" + (f" of volume {volume}" if volume else "")
        super().__init__(f"{what}: {code}: {detail[:DETAIL_LIMIT]}" + (f"; {remedy}" if remedy else ""))
        self.subject = subject
        self.rpc = rpc
        self.code = code
        self.detail = detail[:DETAIL_LIMIT]
        self.volume = volume
        self.remedy = remedy


def mapped(error: grpc.aio.AioRpcError, subject: str, socket: Path, rpc: str, volume: str) -> CsiError:
    """What a failed call means to someone who has to do something about it."""
    code = error.code().name
    detail = error.details() or "no reason given"
    return CsiError(subject, rpc, code, detail, volume=volume, remedy=_remedy(code, socket))


def _remedy(code: str, socket: Path) -> str:
    match code:
        case "UNAVAILABLE":
            return f"nothing answers at {socket}: start the driver; it is found again by its registration socket"
        case "DEADLINE_EXCEEDED":
            return f"the process behind {socket} hangs or its storage does: look at its log, restart it if need be"
        case "UNIMPLEMENTED":
            return f"the process behind {socket} does not serve this call: is that really the driver's socket?"
        case "ABORTED":
            return "another operation on this volume is under way in the driver; this one is repeated later"
        case _:
            return ""
