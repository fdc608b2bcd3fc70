"""libnftables, the library behind nft(8), through ctypes: commands in, errors as exceptions.

The library speaks the language of nft(8), so a ruleset stands in the code as an administrator would write and read it.
A command is one transaction: done as a whole or not at all. One that fails costs the kernel some 15 ms, because it
waits for readers before it takes the changes back, so look before you delete.

Source: libnftables(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from typing import Any, Final

from cni.errors import CniError, ErrorCode

LIBRARY: Final = "libnftables.so.1"
EXCERPT: Final = 600
#: What it says when somebody else's change came into the middle of a look; and how often one looks again.
INTERRUPTED: Final = os.strerror(errno.EINTR)
ATTEMPTS: Final = 50
PAUSE_SECONDS: Final = 0.002


class NftablesError(CniError):
    """The kernel or the library refused a command."""


class Nftables:
    """A context of the library, in the network namespace of the thread that makes the first call. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library: Any = None
        self._context: int | None = None

    def run(self, command: str) -> str:
        """Run commands as one transaction and return what nft(8) would print; raises NftablesError."""
        with self._lock:
            if self._context is None:
                self._open()
            for _ in range(ATTEMPTS):
                status = self._library.nft_run_cmd_from_buffer(self._context, command.encode())
                output = self._library.nft_ctx_get_output_buffer(self._context).decode()
                if status == 0:
                    return str(output)
                reason = self._library.nft_ctx_get_error_buffer(self._context).decode().strip()
                if INTERRUPTED not in reason:
                    break
                time.sleep(PAUSE_SECONDS)  # nothing of it was done
        raise NftablesError(f"nftables refused: {reason[:EXCERPT]}", f"the command was: {command.strip()[:EXCERPT]}")

    def close(self) -> None:
        """Free the context; the next call makes another."""
        with self._lock:
            if self._context is not None:
                self._library.nft_ctx_free(self._context)
                self._context = None

    def _open(self) -> None:
        library = load_library()
        context = library.nft_ctx_new(0)
        if not context:
            raise NftablesError(f"{LIBRARY}: no context", "is the kernel built with nf_tables?")
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        self._library, self._context = library, context


def load_library() -> Any:
    """The library, its functions declared; raises NftablesError (code "not available") when it is missing."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NftablesError(
            f"{LIBRARY} cannot be loaded: {error}",
            "install it (Debian, Ubuntu: apt-get install libnftables1)",
            code=ErrorCode.NOT_AVAILABLE,
        ) from error
    handle = ctypes.c_void_p
    library.nft_ctx_new.argtypes, library.nft_ctx_new.restype = [ctypes.c_uint32], handle
    library.nft_ctx_free.argtypes, library.nft_ctx_free.restype = [handle], None
    library.nft_run_cmd_from_buffer.argtypes = [handle, ctypes.c_char_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [handle]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        function = getattr(library, name)
        function.argtypes, function.restype = [handle], ctypes.c_char_p
    return library
