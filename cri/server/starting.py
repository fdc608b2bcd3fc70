"""The start of the daemon, as far as it can be refused: its configuration, its rights, the directories that it holds.

Then the zygote is begun, which has its own modules to import, and ours are imported meanwhile: they take about as long.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Sequence

from cri.server.config import Config, parse_arguments
from cri.server.listening import exclusive
from cri.server.settings import ConfigError
from runtime.client import ContainerError, ZygoteLauncher
from runtime.linux.database import DatabaseError
from runtime.linux.journal import log_to_stderr

#: What keeps the daemon, or one of its verbs, from its work, in words that need no traceback.
START_ERRORS = (ConfigError, ContainerError, DatabaseError, OSError)


def start(words: Sequence[str]) -> int:
    """Run the daemon with these arguments; the exit code."""
    log_to_stderr()
    try:
        config = parse_arguments(words)
        if os.geteuid() != 0:
            raise ConfigError("crid makes namespaces, mounts and cgroups: run it as root")
        with exclusive(config.root), exclusive(config.state):
            _start(config)
    except START_ERRORS as error:
        print(f"crid: {error}", file=sys.stderr)
        return 1
    return 0


def _start(config: Config) -> None:
    zygote = ZygoteLauncher()
    zygote.begin()
    try:
        from cri.server.serving import serve

        gc.freeze()
        gc.enable()  # main.py has seen to it that none was looked for until now
        asyncio.run(serve(config, zygote))
    finally:
        zygote.abandon()
