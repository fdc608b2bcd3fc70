"""What the runtime tells its caller when something cannot be done, and how that travels between processes.

The kernel's own errors stay OSError, with the failed step as notes. A container's first process, a shim and crid are
three processes: `to_doc` and `from_doc` carry an exception across as the same exception, notes included.
"""

from __future__ import annotations

from typing import Any

from runtime.linux.cgroups import CgroupError, InvalidResources, MissingController


class ContainerError(Exception):
    """Something about one sandbox or container; the message names it and says why."""


class StartError(ContainerError):
    """The container's or exec's program could not be executed: the image or the request is at fault, not the node."""


class NotFound(ContainerError):
    """No such sandbox or container here, or it has exited already."""


class InvalidSpec(ContainerError):
    """A spec asks for something that is malformed, unsafe or impossible."""


class ShimLost(ContainerError):
    """The pod's shim died, hangs or speaks nonsense: this pod is unhealthy, the others are not concerned."""


_KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        *(ContainerError, StartError, NotFound, InvalidSpec, ShimLost, ValueError),
        *(CgroupError, InvalidResources, MissingController),
    )
}


def to_doc(error: BaseException) -> dict[str, Any]:
    """A JSON-able form of an exception."""
    doc: dict[str, Any] = {"kind": type(error).__name__, "message": str(error), "notes": notes_of(error)}
    if isinstance(error, OSError) and error.errno is not None:
        doc["kind"] = "OSError"
        doc["args"] = [error.errno, error.strerror, error.filename if isinstance(error.filename, str) else None]
    return doc


def from_doc(doc: dict[str, Any]) -> Exception:
    """The exception that to_doc() was given; a kind unknown on this side becomes a ContainerError."""
    name, message = str(doc.get("kind")), str(doc.get("message", ""))
    kind = _KINDS.get(name)
    error: Exception
    if name == "OSError" and "args" in doc:
        error = OSError(*doc["args"])
    elif kind is None:
        error = ContainerError(f"{name}: {message}")
    else:
        error = kind.__new__(kind, message)  # not kind(message): a constructor may take what the message is made of
        Exception.__init__(error, message)
    for note in doc.get("notes", ()):
        error.add_note(note)
    return error


def notes_of(error: BaseException) -> list[str]:
    """The notes that were added to an exception on its way."""
    return list(getattr(error, "__notes__", ()))


def explain(error: BaseException) -> str:
    """One line for a person: the message, then the notes from the failed call outwards."""
    return "; ".join([str(error), *notes_of(error)])
