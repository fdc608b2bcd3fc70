"""The one boundary where an exception becomes a gRPC status.

Inside, code raises what fits: CriFault here where a rule of the interface is broken, the packages' own exceptions and
OSError elsewhere. Nothing below this boundary knows gRPC. `status_of` finds the code, `words_of` the text that a
user reads: what failed, for which object, why, and what to do about it.
"""

from __future__ import annotations

import errno

import grpc

from cni.errors import CniError
from cri.server.streaming.requests import InvalidStreamRequest
from cri.server.streaming.tokens import TooManyTokens
from images.errors import (
    DiskFull,
    ImageError,
    ImageNotFound,
    InvalidDigest,
    InvalidReference,
    RegistryError,
    TooLarge,
    Unauthorized,
)
from runtime.client import ContainerError, InvalidSpec, ShimLost, StartError
from runtime.client import NotFound as GoneFromShim
from runtime.linux.cgroups import CgroupError, InvalidResources, MissingController
from runtime.linux.database import DatabaseBusy, DatabaseError, DatabaseFull

Code = grpc.StatusCode


class CriFault(Exception):
    """A request that cannot be granted."""

    code = Code.UNKNOWN


class InvalidRequest(CriFault):
    """The request itself is wrong, whatever the state of the node."""

    code = Code.INVALID_ARGUMENT


class NotFound(CriFault):
    """No such sandbox, container or image."""

    code = Code.NOT_FOUND


class AlreadyExists(CriFault):
    """The name is taken by something else."""

    code = Code.ALREADY_EXISTS


class WrongState(CriFault):
    """The object is there but not in a state that allows the call, or the host lacks what it takes."""

    code = Code.FAILED_PRECONDITION


class Exhausted(CriFault):
    """A limit of this daemon is reached."""

    code = Code.RESOURCE_EXHAUSTED


class TookTooLong(CriFault):
    """Something outside this daemon did not come to an end in time."""

    code = Code.DEADLINE_EXCEEDED


class Unavailable(CriFault):
    """Not now, but later: the daemon is starting or stopping, or a part of it restarts."""

    code = Code.UNAVAILABLE


#: The first matching class decides; subclasses stand before their bases.
_CODES: tuple[tuple[type[BaseException], grpc.StatusCode], ...] = (
    (ImageNotFound, Code.NOT_FOUND),
    (InvalidReference, Code.INVALID_ARGUMENT),
    (InvalidDigest, Code.INVALID_ARGUMENT),
    (Unauthorized, Code.UNAUTHENTICATED),
    (RegistryError, Code.UNAVAILABLE),
    (DiskFull, Code.RESOURCE_EXHAUSTED),
    (TooLarge, Code.RESOURCE_EXHAUSTED),
    (ImageError, Code.FAILED_PRECONDITION),
    (MissingController, Code.FAILED_PRECONDITION),
    (InvalidResources, Code.INVALID_ARGUMENT),
    (CgroupError, Code.FAILED_PRECONDITION),
    (DatabaseFull, Code.RESOURCE_EXHAUSTED),
    (DatabaseBusy, Code.UNAVAILABLE),
    (DatabaseError, Code.INTERNAL),
    (ShimLost, Code.UNAVAILABLE),
    (GoneFromShim, Code.FAILED_PRECONDITION),
    (InvalidSpec, Code.INVALID_ARGUMENT),
    (StartError, Code.UNKNOWN),
    (ContainerError, Code.INTERNAL),
    (CniError, Code.UNAVAILABLE),
    (InvalidStreamRequest, Code.INVALID_ARGUMENT),
    (TooManyTokens, Code.RESOURCE_EXHAUSTED),
    (TimeoutError, Code.DEADLINE_EXCEEDED),
)

_ERRNO_CODES = {
    # A file that is missing is not the object of the request: to the kubelet NOT_FOUND says that this is gone for good.
    errno.ENOENT: Code.FAILED_PRECONDITION,
    errno.EACCES: Code.PERMISSION_DENIED,
    errno.EPERM: Code.PERMISSION_DENIED,
    # A path that is something else than its user took it for: a mount of a file on a directory, a cwd that is a file.
    errno.ENOTDIR: Code.FAILED_PRECONDITION,
    errno.EISDIR: Code.FAILED_PRECONDITION,
    errno.ELOOP: Code.FAILED_PRECONDITION,
    errno.ERANGE: Code.INVALID_ARGUMENT,  # a number that the kernel cannot take, a CPU that there is not
    errno.ENOSPC: Code.RESOURCE_EXHAUSTED,
    errno.EDQUOT: Code.RESOURCE_EXHAUSTED,
    errno.EMFILE: Code.RESOURCE_EXHAUSTED,
    errno.ENFILE: Code.RESOURCE_EXHAUSTED,
    errno.ENOMEM: Code.RESOURCE_EXHAUSTED,
    errno.ETIMEDOUT: Code.DEADLINE_EXCEEDED,
}


def status_of(error: BaseException) -> grpc.StatusCode:
    """The status code of an exception; INTERNAL for those that nobody foresaw."""
    if isinstance(error, CriFault):
        return error.code
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, OSError):
        return _ERRNO_CODES.get(error.errno or 0, Code.INTERNAL)
    return Code.INTERNAL


def foreseen(error: BaseException) -> bool:
    """Whether the message alone explains the error; the log holds the traceback of the others."""
    if isinstance(error, (CriFault, *(kind for kind, _ in _CODES))):
        return True
    # "No space left on device" alone says nothing; with a path, or the call in a note, it does.
    return isinstance(error, OSError) and bool(error.filename or len(getattr(error, "__notes__", ())) > 1)


def words_of(error: BaseException) -> str:
    """Message and notes (the system call, the remedy) as one line."""
    text = str(error) or type(error).__name__
    if not foreseen(error) and not isinstance(error, OSError):
        text = f"unexpected {type(error).__name__}: {text}; the log of crid has the details"
    return "; ".join([text, *getattr(error, "__notes__", ())])
