"""How a call fails: one exception with a status, and the one place that turns exceptions into gRPC's answers."""

from __future__ import annotations

import errno
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from csi.proto.services import Answer

log = logging.getLogger("csi-hostpath")

_CODES = {
    errno.ENOSPC: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errno.EDQUOT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errno.EBUSY: grpc.StatusCode.FAILED_PRECONDITION,
    errno.ENOTEMPTY: grpc.StatusCode.FAILED_PRECONDITION,
    errno.ENAMETOOLONG: grpc.StatusCode.INVALID_ARGUMENT,
}


class Refusal(Exception):
    """A call that is answered by a status; the message says which object, why, and what to do."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> Refusal:
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> Refusal:
    return Refusal(grpc.StatusCode.NOT_FOUND, message)


def answering(name: str, answer: Callable[[Any], Message]) -> Answer:
    """Wrap a method that takes a request and returns or raises, and log the call in one line (never its fields)."""

    @functools.wraps(answer)
    def call(request: Any, context: grpc.ServicerContext) -> Message:
        started = time.monotonic()
        code, words = grpc.StatusCode.OK, ""
        try:
            return answer(request)
        except Refusal as refusal:
            code, words = refusal.code, str(refusal)
        except OSError as error:
            code, words = _CODES.get(error.errno or 0, grpc.StatusCode.INTERNAL), _told(error)
        finally:
            spent = (time.monotonic() - started) * 1000
            log.info("%s %s %s %.1f ms %s", name, getattr(request, "volume_id", "-"), code.name, spent, words)
        context.abort(code, words)

    return call


def _told(error: OSError) -> str:
    return "; ".join([str(error), *getattr(error, "__notes__", [])])


class Locks:
    """One operation at a time per volume; the second is told to come again (CSI spec, ABORTED), never queued."""

    def __init__(self) -> None:
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def held(self, volume_id: str) -> Iterator[None]:
        with self._lock:
            if volume_id in self._busy:
                raise Refusal(grpc.StatusCode.ABORTED, f"volume {volume_id} is being worked on; ask again")
            self._busy.add(volume_id)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(volume_id)
