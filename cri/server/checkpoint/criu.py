"""Which criu there is, and whether it can work on this host: found out by a bounded probe, once for each program.

Versions do not tell: a kernel newer than a criu can be too much for it (3.17 cannot read the vDSO of Linux 6.18), and
a sandbox can forbid what it needs. So criu itself is asked (`criu check`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from dataclasses import dataclass

from cri.server.errors import WrongState
from runtime.linux.commands import CommandFailed, run_command

SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REMEDY = "install criu 4.1 or later (apt install criu), or name one in crid's configuration: [checkpoint] criu"
CHECK_SECONDS = 20.0
OUTPUT = 1 << 20
RETRY_SECONDS = 60.0
_ENVIRONMENT = {"PATH": SEARCHED, "LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class Found:
    """What was found: the program's path and version, and why it cannot work, "" when it can."""

    program: str
    version: str = ""
    trouble: str = ""

    def words(self) -> str:
        """One line for people."""
        what = f"{self.program} {self.version}".strip() or "no criu"
        return f"{what}: {self.trouble}; {REMEDY}" if self.trouble else what


class Criu:
    """The criu of one configuration."""

    def __init__(self, name: str) -> None:
        """`name`: a path, or a name to look for in the system's directories."""
        self._name = name
        self._found: Found | None = None
        self._seen: tuple[int, ...] = ()
        self._asked_at = 0.0
        self._asking = asyncio.Lock()

    async def program(self) -> str:
        """The path of a criu that works here; raises WrongState with what was found and the remedy."""
        found = await self.find()
        if found.trouble:
            raise WrongState(f"CRIU is needed and cannot work here: {found.words()}")
        return found.program

    async def find(self) -> Found:
        """What there is; asked again when the program has changed, or a minute after it failed."""
        async with self._asking:
            path = self._name if "/" in self._name else shutil.which(self._name, path=SEARCHED) or ""
            seen = _identity(path)
            fresh = self._found is not None and self._found.program == path and self._seen == seen
            late = bool(self._found and self._found.trouble) and time.monotonic() - self._asked_at > RETRY_SECONDS
            if self._found is None or not fresh or late:
                self._found = await asyncio.to_thread(probe, path)
                self._seen, self._asked_at = seen, time.monotonic()
            return self._found


def _identity(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def probe(program: str) -> Found:
    """Ask a criu for its version and whether it can work. Blocks for at most CHECK_SECONDS twice."""
    if not program:
        return Found("", trouble=f"no criu in {SEARCHED}")
    version = ""
    try:
        asked = _run(program, "--version")
        version = next((line.split()[-1] for line in asked.splitlines() if line.startswith("Version:")), "")
        trouble = _run(program, "check", failing=True)
    except (OSError, CommandFailed) as error:
        trouble = str(error)
    return Found(program, version, trouble)


def _run(program: str, verb: str, *, failing: bool = False) -> str:
    """The output; with `failing` only what it says when it fails."""
    done = run_command([program, verb], timeout=CHECK_SECONDS, limit=OUTPUT, env=_ENVIRONMENT, cwd="/")
    text = (done.stdout + done.stderr).decode(errors="replace")
    if not failing:
        return text
    errors = [line.strip() for line in text.splitlines() if "Error" in line] or text.splitlines()
    return f"`criu check` ends with {done.returncode}: {' | '.join(errors)[:1000]}" if done.returncode else ""
