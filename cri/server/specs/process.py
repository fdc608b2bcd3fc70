"""The process of a container: the image's configuration with the request laid over it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TERM = "xterm"
#: Bytes of arguments and environment together; the kernel's own limit (execve(2)) depends on the stack limit.
ARGUMENT_LIMIT = 1 << 20


def arguments(config: api.ContainerConfig, image: Mapping[str, Any]) -> list[str]:
    """command replaces the entrypoint and the image's cmd with it; args alone replace the cmd.

    Raises InvalidRequest when nothing is left to run.
    """
    command, args = list(config.command), list(config.args)
    if not command:
        command = _strings(image.get("Entrypoint"))
        args = args or _strings(image.get("Cmd"))
    found = [*command, *args]
    if not found or not found[0]:
        name = config.metadata.name
        raise InvalidRequest(f"container {name}: neither the request nor the image says what to run; set command")
    return found


def environment(config: api.ContainerConfig, image: Mapping[str, Any], hostname: str, home: str) -> list[str]:
    """NAME=value lines: the image's, then the request's over them, then what a program may rely on.

    Raises InvalidRequest for a name or value that the kernel cannot carry.
    """
    merged: dict[str, str] = {}
    for line in _strings(image.get("Env")):
        name, _, value = line.partition("=")
        merged[name] = value
    for pair in config.envs:
        merged[_variable(pair.key)] = _text(pair)
    merged.setdefault("PATH", DEFAULT_PATH)
    merged.setdefault("HOSTNAME", hostname)
    if not merged.get("HOME"):
        merged["HOME"] = home
    if config.tty:
        merged.setdefault("TERM", TERM)
    return [f"{name}={value}" for name, value in merged.items()]


def _variable(name: str) -> str:
    if not name or "=" in name or "\0" in name:
        raise InvalidRequest(f"environment variable name {name[:80]!r} is empty or holds '=' or NUL")
    return name


def _text(pair: api.KeyValue) -> str:
    # bytes since v0.37 of the interface, so that a client can pass what is not UTF-8; surrogates carry it through.
    if b"\0" in pair.value:
        raise InvalidRequest(f"the value of environment variable {pair.key} holds a NUL")
    return pair.value.decode("utf-8", "surrogateescape")


def working_directory(config: api.ContainerConfig, image: Mapping[str, Any]) -> str:
    """Absolute; the shim creates it if the image lacks it, and refuses what leads to /proc/self/fd (CVE-2024-21626)."""
    directory = config.working_dir or str(image.get("WorkingDir") or "/")
    if "\0" in directory:
        raise InvalidRequest(f"the working directory {directory[:200]!r} holds a NUL")
    return posixpath.normpath(directory) if directory.startswith("/") else posixpath.normpath("/" + directory)


def checked(arguments: Sequence[str], environment: Iterable[str]) -> None:
    """Raise InvalidRequest for what no execve(2) takes, whoever asked for it: a request, an image, a plugin."""
    texts = [*arguments, *environment]
    if any("\0" in text for text in texts):
        raise InvalidRequest("an argument or environment variable holds a NUL")
    try:
        size = sum(len(os.fsencode(text)) + 1 for text in texts)
    except UnicodeEncodeError as error:  # the JSON of an image can hold half a surrogate pair
        raise InvalidRequest(f"an argument or environment variable is not text: {error}") from error
    if size > ARGUMENT_LIMIT:
        raise InvalidRequest(f"arguments and environment take {size} bytes, more than the limit of {ARGUMENT_LIMIT}")


def _strings(value: Any) -> list[str]:
    # An image's config is foreign JSON: anything but a list of strings counts as absent.
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
