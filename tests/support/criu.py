"""A criu that works on this kernel: the system's, else one built from Debian's source package of a later release.

Debian 12 has criu 3.17, which cannot read the vDSO of newer kernels. Where apt, a compiler or CRIU's libraries are
missing, `require` skips the test with that reason and with what the system's own criu says.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from cri.server.checkpoint.criu import Found, probe
from tests.support.peers import CACHE

RELEASE, VERSION = "sid", "4.2.1"
FOLDER = CACHE / f"criu-{VERSION}"
BUILD_SECONDS = 900.0
#: What CRIU is built with here: no TLS for page servers, no nftables to lock networks, none of its GPU plugins.
MAKE = ["nice", "make", "-j2", "criu", "NO_GNUTLS=1", "NO_NFTABLES=1", "PLUGINS="]


class CriuUnavailable(Exception):
    """No criu works here; the message says why."""


@cache
def find() -> Found:
    """The criu to test with; raises CriuUnavailable."""
    own = probe(shutil.which("criu") or "")
    if not own.trouble:
        return own
    try:
        built = probe(str(_built()))
    except (OSError, subprocess.SubprocessError, CriuUnavailable) as error:
        raise CriuUnavailable(f"{own.words()}; and none can be built: {error}") from error
    if built.trouble:
        raise CriuUnavailable(built.words())
    return built


def require() -> str:
    """The path of a criu that works; skips the test with the reason where there is none."""
    try:
        return find().program
    except CriuUnavailable as reason:
        pytest.skip(str(reason))


def _built() -> Path:
    binary = FOLDER / "criu"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            with tempfile.TemporaryDirectory(prefix="na-criu-") as scratch:
                made = _build(Path(scratch))
                shutil.copy2(made, binary.with_suffix(".new"))
            binary.with_suffix(".new").rename(binary)
    return binary


def _build(scratch: Path) -> Path:
    """Fetch the source through apt, with lists of its own, and compile it."""
    sources, state = scratch / "sources.list", scratch / "lists"
    (state / "partial").mkdir(parents=True)
    sources.write_text(f"deb-src http://deb.debian.org/debian {RELEASE} main\n")
    options = [f"Dir::State::lists={state}", f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=-"]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    _run([*apt, "update"], scratch)
    fetched = _run([*apt, "source", "--download-only", "criu"], scratch, fatal=False)
    archive = next(scratch.glob("criu_*.orig.tar.*"), None)
    if archive is None:  # Debian's own part of the source is not needed, and some mirrors lack it
        raise CriuUnavailable(fetched)
    _run(["tar", "--extract", "--no-same-owner", "--file", str(archive)], scratch)
    tree = next(path for path in scratch.iterdir() if path.is_dir() and path.name.startswith("criu-"))
    _run(MAKE, tree)
    return tree / "criu" / "criu"


def _run(command: list[str], cwd: Path, *, fatal: bool = True) -> str:
    """What went wrong, if that is not fatal."""
    done = subprocess.run(
        command, cwd=cwd, timeout=BUILD_SECONDS, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
    )
    words = " | ".join((done.stderr or done.stdout).strip().splitlines()[-4:])
    if done.returncode and fatal:
        raise CriuUnavailable(f"`{' '.join(command[:4])} ...` failed: {words}")
    return words
